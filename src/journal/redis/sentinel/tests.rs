//! What sentinels say, and how they are asked.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;

fn read(url: &str) -> SentinelUrl {
    SentinelUrl::read(url).expect("of sentinel").expect(url)
}

fn three() -> Sentinels {
    let url = "redis+sentinel://u:secret@h1,h2,h3/main?sentinel_password=secret";
    Sentinels::of(url, SentinelUrl::read(url).expect("of sentinel")).expect(url)
}

fn primary(address: &str) -> Said {
    Said::Primary(address.to_owned())
}

#[test]
fn the_server_gets_user_password_and_database_and_the_sentinels_their_own() {
    let found = read("redis+sentinel://u:p%40@h/m?db=3&sentinel_user=a&sentinel_password=b%2F");
    let sentinels = Arc::new(Sentinels::of("", Ok(found)).expect("fit"));
    let settings = |client: &Client| client.get_connection_info().redis_settings().clone();
    let server = sentinels.server("10.0.0.1:6380").expect("fit");
    assert_eq!(
        (server.shown.as_str(), server.client.get_connection_info().addr().to_string().as_str()),
        ("redis://10.0.0.1:6380", "10.0.0.1:6380")
    );
    let of_server = settings(&server.client);
    assert_eq!((of_server.username(), of_server.password(), of_server.db()), (Some("u"), Some("p@"), 3));
    let of_sentinel = settings(&sentinels.all[0].client);
    assert_eq!((of_sentinel.username(), of_sentinel.password(), of_sentinel.db()), (Some("a"), Some("b/"), 0));
    let none = settings(&Sentinels::of("", Ok(read("redis+sentinel://u:p@h/m"))).expect("fit").all[0].client);
    assert_eq!((none.username(), none.password()), (None, None));
}

#[test]
fn what_does_not_parse_shows_no_password() {
    for url in [
        "redis+sentinel://u:secret@/main",
        "redis+sentinel://u:secret",
        "redis+sentinel://u:secret@h",
        "redis+sentinel://u:se@secret@h:x/main",
        "redis+sentinel://u:secret@h/main?sentinel_password=secret/x",
        "redis+sentinel://u:secret@h/main?sentinel_password=a@secret",
        "redis+sentinel://u:a?secret@h/main",
    ] {
        let error = Sentinels::of(url, SentinelUrl::read(url).expect("of sentinel")).err().expect(url);
        assert!(matches!(error, JournalError::Unfit(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME"), "{text}");
        assert!(!text.contains("secret@") && !text.contains(":secret") && !text.contains("secret/"), "{text}");
    }
}

#[test]
fn more_than_half_must_name_the_same() {
    let [a, b] = ["h:1", "h:2"];
    for (said, needed, named) in [
        (vec![primary(a)], 1, Some(a)),
        (vec![primary(a)], 2, None),
        (vec![primary(a), primary(b)], 2, None),
        (vec![primary(a), Said::Unknown, primary(b), primary(b)], 2, Some(b)),
    ] {
        let said: Vec<_> = said.into_iter().enumerate().collect();
        assert_eq!(majority(&said, needed), named, "{said:?}");
    }
    let needed = |n: usize| {
        let hosts = (0..n).map(|n| format!("h{n}")).collect::<Vec<_>>().join(",");
        Sentinels::of("", Ok(read(&format!("redis+sentinel://{hosts}/m")))).expect("fit").needed()
    };
    assert_eq!([1, 2, 3, 4, 5].map(needed), [1, 2, 2, 3, 3]);
}

#[tokio::test]
async fn why_there_is_no_primary_is_one_line_that_says_what_to_do() {
    let away = || Said::Nothing(JournalError::Unreachable("away".into()));
    let login = redis::make_extension_error("NOAUTH".into(), Some("Authentication required.".into()));
    for (said, class, says) in [
        (vec![away(), away(), away()], "unreachable", "no sentinel answers: h1:26379 does not tell"),
        (vec![primary("a:1"), primary("b:1"), away()], "unreachable", "2 of 3 sentinels must name the same primary of \"main\""),
        (
            vec![primary("a:1"), primary("b:1"), away()],
            "unreachable",
            "h1:26379 names a:1; h2:26379 names b:1; h3:26379 does not",
        ),
        (
            vec![primary("a:1"), Said::NoSentinel, away()],
            "refused",
            "h2:26379 is a redis server and no sentinel: use redis://h2:26379",
        ),
        (vec![away(), Said::Nothing(sentinel_error(&login)), away()], "refused", "sentinel h2:26379: it does not accept user"),
        (vec![primary("a:1"), Said::Unknown, away()], "unreachable", "h2:26379 knows none of that name"),
    ] {
        let said: Vec<_> = said.into_iter().enumerate().collect();
        let error = three().explain(&said).await;
        let text = error.to_string();
        assert!(error.kind() == class && text.contains(says) && !text.contains('\n') && !text.contains("secret"), "{text}");
    }
}

#[test]
fn a_sentinel_tells_what_it_watches() {
    let info = "# Sentinel\r\nsentinel_masters:2\r\nmaster0:name=one,status=ok,address=h:1\r\nmaster1:name=two,status=sdown\r\n";
    assert_eq!(names(info).collect::<Vec<_>>(), ["one", "two"]);
    let plain = "redis_mode:standalone\r\n";
    assert!(is_a_sentinel(plain, "redis://h").is_none());
}

/// A sentinel that answers each command unless it hangs. It tells how many connections it has taken, and how many questions came on the last.
async fn sentinel(hangs: bool) -> (Sentinel, watch::Receiver<(u32, u32)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let shown = listener.local_addr().expect("an address").to_string();
    let (tell, told) = watch::channel((0, 0));
    tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            tell.send_if_modified(|(connections, questions)| {
                (*connections, *questions) = (*connections + 1, 0);
                false
            });
            let tell = tell.clone();
            connections.push(tokio::spawn(async move {
                let (from, mut to) = socket.split();
                let mut lines = BufReader::new(from).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let answer = match line.as_str() {
                        "SENTINEL" if hangs => "",
                        "SENTINEL" => "+h:1\r\n",
                        "SETINFO" => "+OK\r\n",
                        _ => continue,
                    };
                    let _ = to.write_all(answer.as_bytes()).await;
                    if line == "SENTINEL" {
                        tell.send_modify(|(_, questions)| *questions += 1);
                    }
                }
            }));
        }
    });
    let client = client(&format!("redis://{shown}")).expect("a client");
    (Sentinel { client, shown, kept: parking_lot::Mutex::new(None) }, told)
}

/// Whoever has heard a majority does not wait for the others, and asks again after a second.
#[tokio::test]
async fn the_questions_to_a_sentinel_that_hangs_do_not_pile_up() {
    let question = cmd("SENTINEL");
    let (hangs, mut told) = sentinel(true).await;
    let mut most = 0;
    for _ in 0..50 {
        tokio::select! {
            answer = hangs.ask::<String>(&question) => panic!("{answer:?}"),
            arrived = told.changed() => arrived.expect("it lives"),
        }
        most = most.max(told.borrow_and_update().1);
    }
    assert_eq!((most, told.borrow().0), (SENTINEL_UNANSWERED_MAX, 50_u32.div_ceil(SENTINEL_UNANSWERED_MAX)));
    let (answers, told) = sentinel(false).await;
    for _ in 0..50 {
        assert_eq!(answers.ask::<String>(&question).await.expect("an answer"), "h:1");
    }
    assert_eq!(told.borrow().0, 1, "it keeps its connection");
}
