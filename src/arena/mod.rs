//! The arena: the page that a gateway serves at `/`. Its files are built into the program.

/// JavaScript modules.
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The content type and the text of the file at `path`; None when no file is there.
#[must_use]
pub(crate) fn asset(path: &str) -> Option<(&'static str, &'static str)> {
    Some(match path {
        "/" | "/index.html" => ("text/html; charset=utf-8", include_str!("index.html")),
        "/arena.css" => ("text/css; charset=utf-8", include_str!("arena.css")),
        "/favicon.svg" => ("image/svg+xml", include_str!("favicon.svg")),
        "/arena.js" => (SCRIPT, include_str!("arena.js")),
        "/contest.js" => (SCRIPT, include_str!("contest.js")),
        "/precision.js" => (SCRIPT, include_str!("precision.js")),
        "/rival.js" => (SCRIPT, include_str!("rival.js")),
        "/timeline.js" => (SCRIPT, include_str!("timeline.js")),
        "/lasthit.js" => (SCRIPT, include_str!("../../clients/js/lasthit.js")),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between `before` and `after` in a text, everywhere.
    fn between<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
        text.split(before).skip(1).filter_map(|rest| rest.split(after).next()).collect()
    }

    #[test]
    fn everything_that_the_page_refers_to_is_served() {
        let (_, page) = asset("/").expect("page");
        let mut wanted: Vec<String> = Vec::new();
        for attribute in ["href=\"/", "src=\"/"] {
            wanted.extend(between(page, attribute, "\"").iter().map(|path| format!("/{path}")));
        }
        assert!(wanted.contains(&"/arena.js".to_owned()), "{wanted:?}");
        while let Some(path) = wanted.pop() {
            let (kind, text) = asset(&path).unwrap_or_else(|| panic!("{path} is referred to and not served"));
            if kind == SCRIPT {
                wanted.extend(
                    between(text, "\nimport ", ";")
                        .iter()
                        .filter_map(|import| Some(format!("/{}", import.split("'./").nth(1)?.trim_end_matches('\'')))),
                );
            }
        }
    }

    #[test]
    fn every_element_that_the_script_names_is_on_the_page() {
        let (_, page) = asset("/").expect("page");
        for id in between(asset("/arena.js").expect("script").1, "$('", "')") {
            assert!(page.contains(&format!("id=\"{id}\"")), "no element {id:?}");
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere_and_no_other_path_is_served() {
        for path in ["/", "/arena.css", "/arena.js", "/contest.js", "/precision.js", "/rival.js", "/timeline.js", "/favicon.svg"]
        {
            let (_, text) = asset(path).expect(path);
            let foreign: Vec<_> =
                between(text, "://", "\"").into_iter().filter(|u| !u.starts_with("www.w3.org/2000/svg")).collect();
            assert!(foreign.is_empty(), "{path}: {foreign:?}");
        }
        for path in ["", "/mod.rs", "/../Cargo.toml", "//"] {
            assert_eq!(asset(path), None);
        }
    }
}
