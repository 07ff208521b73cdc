//! Receivers that are away, slow, gone or somewhere else.

use super::*;

/// Answers each request with the next of `answers`, and keeps what it was sent.
async fn receiver(answers: Vec<&'static str>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = heard.clone();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("somebody comes");
            let mut request = Vec::new();
            while !is_whole(&request) {
                let mut part = [0; 4096];
                let count = stream.read(&mut part).await.expect("readable");
                if count == 0 {
                    break;
                }
                request.extend_from_slice(&part[..count]);
            }
            kept.lock().expect("no panic").push(String::from_utf8(request).expect("UTF-8"));
            stream.write_all(answer.as_bytes()).await.expect("writable");
        }
    });
    (address, heard)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

const TAKEN: &str = "HTTP/1.1 204 No Content\r\n\r\n";

#[tokio::test]
async fn it_is_tried_again_under_the_same_id_and_nobody_else_waits_for_that() {
    let busy = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 5\r\n\r\nbusy\x1b";
    let (flaky, flaky_heard) = receiver(vec![busy, busy, TAKEN]).await;
    let (sound, sound_heard) = receiver(vec![TAKEN, TAKEN]).await;
    // Takes connections and never answers.
    let stuck = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let stuck_url = format!("http://{}/", stuck.local_addr().expect("bound"));
    let (_, journal) = memory();
    let sinks = [
        webhook("stuck", &stuck_url, Reach::Any),
        webhook("flaky", &format!("http://{flaky}/x"), Reach::Any),
        webhook("sound", &format!("http://{sound}/x"), Reach::Any),
    ];
    let notifier = Notifier::open(&journal, &sinks, "https://holdfast.example").await.expect("readable");
    let (board, stop) = (notifier.board(), CancellationToken::new());
    let running = tokio::spawn(notifier.run(stop.clone()));
    append(&*journal, id(1), 0, vec![asking()]);
    eventually(|| sound_heard.lock().expect("no panic").len() == 1).await;
    eventually(|| flaky_heard.lock().expect("no panic").len() == 3).await;
    let ids: Vec<String> = flaky_heard
        .lock()
        .expect("no panic")
        .iter()
        .filter_map(|request| Some(request.lines().find(|line| line.starts_with("webhook-id: "))?.to_owned()))
        .collect();
    assert_eq!(ids, vec![format!("webhook-id: hf_{}_0", id(1).0.simple()); 3]);
    eventually(|| board.all()[1].state == "ready").await;
    let [stuck_health, flaky_health, sound_health] = board.all().try_into().expect("three");
    assert_eq!(stuck_health.behind, 1, "{stuck_health:?}");
    assert_eq!(flaky_health.last_error.as_deref(), Some("it answered HTTP 503: busy\\u{1b}"));
    assert!(sound_health.last_success.is_some() && sound_health.last_error.is_none(), "{sound_health:?}");
    stop.cancel();
    running.await.expect("it ends although one is stuck");
    assert_eq!(journal.cursor("notify/stuck").expect("readable"), Some(0), "told after the next start");
    assert_eq!(journal.cursor("notify/flaky").expect("readable"), Some(1));
}

#[tokio::test]
async fn who_is_gone_is_left_alone_and_who_moved_is_not_followed() {
    let (elsewhere, elsewhere_heard) = receiver(vec![TAKEN]).await;
    let moved: &'static str = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{elsewhere}/\r\nContent-Length: 0\r\n\r\n"
    )
    .leak();
    let (moved, moved_heard) = receiver(vec![moved]).await;
    let (gone, gone_heard) = receiver(vec!["HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", TAKEN]).await;
    let (_, journal) = memory();
    let sinks = [
        webhook("gone", &format!("http://{gone}/"), Reach::Any),
        webhook("moved", &format!("http://{moved}/"), Reach::Any),
    ];
    let notifier = Notifier::open(&journal, &sinks, "https://holdfast.example").await.expect("readable");
    let (board, stop) = (notifier.board(), CancellationToken::new());
    let running = tokio::spawn(notifier.run(stop.clone()));
    append(&*journal, id(1), 0, vec![asking()]);
    append(&*journal, id(2), 0, vec![asking()]);
    eventually(|| board.all()[0].state == "off").await;
    eventually(|| board.all()[1].state == "retrying").await;
    assert_eq!(board.all()[1].last_error.as_deref(), Some("it answered HTTP 307"));
    stop.cancel();
    running.await.expect("it ends");
    assert_eq!(gone_heard.lock().expect("no panic").len(), 1);
    assert_eq!(moved_heard.lock().expect("no panic").len(), 1);
    assert!(elsewhere_heard.lock().expect("no panic").is_empty());
    assert_eq!(journal.cursor("notify/gone").expect("readable"), Some(0), "the next start asks again");
}

#[tokio::test]
async fn names_that_mean_this_machine_are_not_connected_to() {
    let (address, heard) = receiver(vec![TAKEN]).await;
    let port = address.rsplit(':').next().expect("a port");
    for host in ["localhost", "any.localhost"] {
        let sink = webhook("a", &format!("https://{host}:{port}/"), Reach::Public);
        let what = test(&sink, "https://holdfast.example").await.expect_err("refused");
        // Where a name has no address at all that is as good.
        assert!(what.contains("is this machine") || what.contains("dns error"), "{what}");
    }
    let literal = webhook("a", &format!("https://{address}/"), Reach::Public);
    let what = test(&literal, "https://holdfast.example").await.expect_err("refused");
    assert!(what.contains("127.0.0.1 is this machine") && what.contains("allow_private"), "{what}");
    assert!(heard.lock().expect("no panic").is_empty());
}

/// Gives each name the same address, and counts.
struct Always(&'static str, AtomicUsize);

impl guard::LookUp for Always {
    fn look_up(&self, _: String) -> guard::Found {
        self.1.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::new(self.0.parse().expect("an address"), 0);
        Box::pin(async move { Ok(vec![address]) })
    }
}

#[tokio::test]
async fn a_name_is_asked_for_each_time_and_only_what_was_checked_is_connected_to() {
    let (address, heard) = receiver(vec![TAKEN, TAKEN]).await;
    let port = address.rsplit(':').next().expect("a port");
    let send = async |scheme: &str, reach: Reach, look_up: Arc<Always>| {
        let url = format!("{scheme}://hook.example:{port}/").parse().expect("an address");
        let client = http::client(&url, reach, look_up).expect("a client");
        let mut last = None;
        for _ in 0..2 {
            let post = http::Post { url: &url, headers: Default::default(), body: "x".into() };
            last = Some(http::send(&client, post, reach).await);
        }
        last.expect("twice")
    };
    let looked = Arc::new(Always("127.0.0.1", AtomicUsize::new(0)));
    assert_eq!(send("http", Reach::Any, looked.clone()).await, Ok("HTTP 204".to_owned()));
    assert_eq!(looked.1.load(Ordering::Relaxed), 2);
    let requests = heard.lock().expect("no panic").clone();
    assert!(
        requests.iter().all(|request| request.contains(&format!("host: hook.example:{port}"))),
        "{requests:?}"
    );

    for private in ["127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00::1"] {
        let looked = Arc::new(Always(private, AtomicUsize::new(0)));
        let failure = send("https", Reach::Public, looked).await.expect_err(private);
        assert!(failure.what.starts_with("hook.example is "), "{private}: {failure:?}");
        assert_eq!(failure.outlook, Outlook::Doubtful);
    }
    assert_eq!(heard.lock().expect("no panic").len(), 2);
}
