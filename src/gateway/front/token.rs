//! JSON Web Tokens that are signed with HS256 (RFC 7515, 7518, 7519). Other algorithms are refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Map, Value};

/// The optional header fields that must be text.
const TEXTS: [&str; 3] = ["typ", "cty", "kid"];

/// The key that tokens are signed with.
pub(super) struct TokenKey(hmac::Key);

impl TokenKey {
    pub(super) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The claims of a token that this key has signed. They are not checked.
    pub(super) fn claims(&self, token: &str) -> Result<Map<String, Value>, String> {
        let parts: Vec<&str> = token.splitn(4, '.').collect();
        let &[header, claims, signature] = parts.as_slice() else { return Err(no_token()) };
        judge(&object(header).ok_or_else(no_token)?)?;
        let signed = &token[..header.len() + 1 + claims.len()];
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        // Takes the same time for every signature.
        if hmac::verify(&self.0, signed.as_bytes(), &signature).is_err() {
            return Err("token's signature does not match this server's key".to_owned());
        }
        object(claims).ok_or_else(|| "token's claims are not readable: use a JSON object in base64url".to_owned())
    }
}

/// The beginning of a client's text, short enough for a message.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

fn no_token() -> String {
    "token is not a JSON Web Token: use header.claims.signature in base64url".to_owned()
}

/// Checks that this code understands every part of a header.
fn judge(header: &Map<String, Value>) -> Result<(), String> {
    let alg = header.get("alg").and_then(Value::as_str).ok_or_else(no_token)?;
    if alg != "HS256" {
        return Err(format!("token's alg {:?} is not accepted: use HS256", excerpt(alg)));
    }
    if header.contains_key("crit") {
        return Err("token's header has crit, which is not supported: leave it out".to_owned());
    }
    match TEXTS.iter().find(|name| header.get(**name).is_some_and(|value| !value.is_string())) {
        Some(name) => Err(format!("token's {name} is not a string: use one, or leave it out")),
        None => Ok(()),
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use servers::token;

    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

    /// RFC 7515, appendix A.1: its key, its token.
    #[test]
    fn the_rfcs_own_token_is_read() {
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = TokenKey::new(&URL_SAFE_NO_PAD.decode(key).expect("a key"));
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                     dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let claims = key.claims(token).expect("signed");
        assert_eq!(Value::Object(claims), json!({"iss": "joe", "exp": 1_300_819_380, "http://example.com/is_root": true}));
        // The last character has two unused bits. The same signature spelled with other bits is refused.
        for spoiled in [&token[..token.len() - 1], &format!("{token}A"), &format!("{}l", &token[..token.len() - 1])] {
            assert!(key.claims(spoiled).expect_err("no signature").contains("signature"), "{spoiled}");
        }
        assert!(TokenKey::new(KEY).claims(token).expect_err("another key").contains("signature"));
    }

    #[test]
    fn a_header_is_understood_or_refused() {
        let read = |header: &Value| TokenKey::new(KEY).claims(&token(KEY, header, &json!({"sub": "ann"})));
        for good in [json!({"alg": "HS256"}), json!({"alg": "HS256", "typ": "at+jwt", "kid": "7", "x": [1]})] {
            assert_eq!(read(&good).expect("good")["sub"], "ann", "{good}");
        }
        for (bad, says) in [
            (json!({"typ": "JWT"}), "not a JSON Web Token"),
            (json!({"alg": 256}), "not a JSON Web Token"),
            (json!({"alg": ["HS256"]}), "not a JSON Web Token"),
            (json!(["HS256"]), "not a JSON Web Token"),
            (json!("HS256"), "not a JSON Web Token"),
            (json!({"alg": "none"}), "\"none\""),
            (json!({"alg": "hs256"}), "\"hs256\""),
            (json!({"alg": "HS512"}), "\"HS512\""),
            (json!({"alg": "RS256"}), "\"RS256\""),
            (json!({"alg": "HS256", "crit": ["exp"]}), "crit"),
            (json!({"alg": "HS256", "crit": null}), "crit"),
            (json!({"alg": "HS256", "kid": 7}), "kid is not a string"),
            (json!({"alg": "HS256", "typ": null}), "typ is not a string"),
        ] {
            let error = read(&bad).expect_err("bad");
            assert!(error.contains(says) && !error.contains('\n'), "{bad}: {error}");
        }
    }

    #[test]
    fn a_token_has_three_parts_and_claims_that_are_an_object() {
        let header = json!({"alg": "HS256"});
        let good = token(KEY, &header, &json!({}));
        assert_eq!(TokenKey::new(KEY).claims(&good), Ok(Map::new()));
        for bad in
            ["", ".", "..", "...", &format!("{good}."), &format!("{good}.{good}"), &format!(".{good}"), &good.replace('.', "")]
        {
            assert!(TokenKey::new(KEY).claims(bad).is_err(), "{bad}");
        }
        // Base64 with padding, line breaks or another alphabet differs from what was signed.
        for odd in [good.replacen('.', "=.", 1), good.replacen('.', "\n.", 1), format!(" {good}")] {
            assert!(TokenKey::new(KEY).claims(&odd).is_err(), "{odd}");
        }
        for claims in [json!([]), json!("x"), json!(null), json!(7)] {
            let error = TokenKey::new(KEY).claims(&token(KEY, &header, &claims)).expect_err("no object");
            assert!(error.contains("claims are not readable"), "{error}");
        }
    }
}
