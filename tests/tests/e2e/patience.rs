//! Requests that never end: the listener of operators waits for nobody for long, and meanwhile serves the others.

use holdfast_tests::{ALLOW, Connection, World};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";

#[test]
fn operators_who_never_finish_a_request_hold_up_nobody() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let host = &served.inbox;
    let begun = format!(
        "POST /login HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n{FORM}\r\nContent-Length: 100\r\n\r\ncsrf="
    );
    let stalled = |bytes: &str| -> Vec<Connection> {
        let open = |_| {
            let mut connection = Connection::open(&served.inbox);
            connection.write(bytes.as_bytes());
            connection
        };
        (0..50).map(open).collect()
    };
    let (heads, bodies) = (stalled(&begun[..40]), stalled(&begun));
    assert_eq!(served.ask_inbox("GET", "/healthz", &[], b"").status(), 200);
    world.run(&["pending"]).ok();

    for mut connection in heads {
        assert!(connection.try_head().is_none(), "half a head was answered");
    }
    for mut connection in bodies {
        let response = connection.response();
        assert_eq!(response.status(), 403, "{}", response.body);
        assert!(response.body.contains("Not all of it arrived in time."), "{}", response.body);
    }
    assert_eq!(served.ask_inbox("GET", "/healthz", &[], b"").status(), 200);
}

#[test]
fn operators_who_never_finish_a_request_do_not_keep_it_from_stopping() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let begun =
        format!("POST /login HTTP/1.1\r\nHost: {}\r\n{FORM}\r\nContent-Length: 9\r\n\r\nc", served.inbox);
    let stalled: Vec<Connection> = (0..20)
        .map(|n| {
            let mut connection = Connection::open(&served.inbox);
            connection.write(if n % 2 == 0 { &begun.as_bytes()[..40] } else { begun.as_bytes() });
            connection
        })
        .collect();
    assert_eq!(served.ask_inbox("GET", "/healthz", &[], b"").status(), 200);
    assert!(served.stop().success());
    drop(stalled);
}
