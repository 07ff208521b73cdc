//! What is around every page: its head, who is signed in, where to go, and what was just done.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use holdfast_store::{CallId, Filter, Journal, JournalError, State};
use maud::{DOCTYPE, Markup, html};

use super::{
    assets,
    session::{Flash, Session, Tone},
    text::grouped,
};
use crate::{inbox::visible::visible, report::Report};

/// Counts beyond this are not counted out for the navigation.
const COUNTED: usize = 1_000;

/// Where in the navigation a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    Waiting,
    Doubt,
    Calls,
    Servers,
    Overview,
}

const PLACES: [(Here, &str, &str); 5] = [
    (Here::Waiting, "/", "Waiting"),
    (Here::Doubt, "/doubt", "In doubt"),
    (Here::Calls, "/calls", "Calls"),
    (Here::Servers, "/servers", "Servers"),
    (Here::Overview, "/overview", "Overview"),
];

/// Which news make a page look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// All.
    Everything,
    /// Those of one call.
    Call(CallId),
    /// None but the counts: the page is of the past.
    Nothing,
}

/// What waits for people, for the navigation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) asking: usize,
    pub(super) doubtful: usize,
}

impl Counts {
    /// Counts, up to what the navigation tells apart.
    pub(super) fn read(journal: &dyn Journal) -> Result<Self, JournalError> {
        let count = |state| {
            let filter = Filter { states: vec![state], limit: COUNTED, ..Filter::default() };
            journal.list(&filter).map(|calls| calls.len())
        };
        Ok(Self { asking: count(State::Asking)?, doubtful: count(State::InDoubt)? })
    }
}

/// What the shell needs to know of a page.
pub(super) struct Frame<'a> {
    pub(super) session: &'a Session,
    pub(super) here: Here,
    pub(super) title: &'a str,
    pub(super) counts: Counts,
    pub(super) flash: Option<Flash>,
    pub(super) watch: Watch,
}

/// A whole page for somebody who is signed in.
pub(super) fn page(frame: &Frame<'_>, body: &Markup) -> Html {
    let watch = match frame.watch {
        Watch::Everything => "all".to_owned(),
        Watch::Call(call) => call.to_string(),
        Watch::Nothing => "counts".to_owned(),
    };
    let content = html! {
        body data-watch=(watch) data-now=(crate::driver::now().0) {
            a.skip href="#main" { "Skip to the content" }
            header.top {
                a.brand href="/" { img src=(assets::url("svg")) alt="" width="26" height="26"; "Holdfast" }
                (navigation(frame))
                (me(frame.session))
            }
            div #said aria-live="polite" { (flash(frame.flash.as_ref())) }
            main #main tabindex="-1" { (body) }
            div #news hidden { button type="button" { "Show what has changed" } }
            (keys())
        }
    };
    document(frame.title, &content)
}

fn navigation(frame: &Frame<'_>) -> Markup {
    let count = |here| match here {
        Here::Waiting => frame.counts.asking,
        Here::Doubt => frame.counts.doubtful,
        _ => 0,
    };
    html! {
        nav #places aria-label="Inbox" data-waiting=(frame.counts.asking) {
            @for (here, path, name) in PLACES {
                a href=(path) aria-current=[(here == frame.here).then_some("page")] data-key=(path) {
                    (name)
                    @if count(here) > 0 {
                        " " span.count { (most(count(here))) }
                    }
                }
            }
        }
    }
}

/// A count of the navigation, which was not counted out beyond [`COUNTED`].
fn most(count: usize) -> String {
    if count < COUNTED { count.to_string() } else { format!("{}+", grouped(COUNTED - 1)) }
}

fn me(session: &Session) -> Markup {
    html! {
        div.me {
            span #live title="Changes are not shown by themselves" { "offline" }
            details {
                summary { (visible(&session.by.name)) }
                div.menu {
                    p { "Signed in as " strong { (visible(&session.by.name)) } ", " (session.role.name()) "." }
                    @if !session.by.groups.is_empty() {
                        p { "Groups: " (visible(&session.by.groups.join(", "))) }
                    }
                    form method="post" action="/logout" {
                        (csrf(session))
                        button type="submit" { "Sign out" }
                    }
                }
            }
        }
    }
}

fn keys() -> Markup {
    let keys = [
        ("j / k", "next, previous"),
        ("o", "open the call"),
        ("a", "go to its Approve button"),
        ("r", "go to its Reject form"),
        ("x", "select it"),
        ("/", "search or filter"),
        ("1 – 5", "go to a view"),
        ("?", "this list"),
    ];
    html! {
        dialog #keys aria-labelledby="keys-title" {
            h2 #keys-title { "Keyboard" }
            dl { @for (key, what) in keys { dt { kbd { (key) } } dd { (what) } } }
            form method="dialog" { button autofocus { "Close" } }
        }
    }
}

fn flash(flash: Option<&Flash>) -> Markup {
    html! {
        @if let Some(flash) = flash {
            @match flash.tone {
                Tone::Good => { p.flash.good role="status" { (visible(&flash.text)) } }
                Tone::Bad => { p.flash.bad role="alert" { (visible(&flash.text)) } }
            }
        }
    }
}

/// The hidden field that every form of a session carries.
pub(super) fn csrf(session: &Session) -> Markup {
    html! { input type="hidden" name="csrf" value=(session.csrf); }
}

/// A page for somebody who is not signed in, or for whom nothing else can be shown.
pub(super) fn bare(title: &str, body: &Markup) -> Html {
    let content = html! {
        body.bare {
            main #main {
                p.brand { img src=(assets::url("svg")) alt="" width="32" height="32"; "Holdfast" }
                (body)
            }
        }
    };
    document(title, &content)
}

/// A page that goes on to `path` by itself: from here the browser brings its cookie.
pub(super) fn stepping_stone(path: &str) -> Html {
    let head = html! { meta http-equiv="refresh" content={ "0;url=" (path) }; };
    let body = html! {
        body.bare {
            main { p { a.button href=(path) { "Go on to the inbox" } } }
        }
    };
    whole("Holdfast", &head, &body)
}

/// A page about an error, for somebody who is signed in or not.
pub(super) fn problem(status: StatusCode, report: &Report) -> Response {
    let body = html! {
        h1 { (report.code) }
        p { (visible(&report.message)) }
        @if let Some(hint) = &report.hint { p.dim { (visible(hint)) } }
        p { a.button href="/" { "To the inbox" } }
    };
    (status, bare(report.code, &body)).into_response()
}

fn document(title: &str, body: &Markup) -> Html {
    whole(title, &html! { script src=(assets::url("js")) defer {} }, body)
}

fn whole(title: &str, head: &Markup, body: &Markup) -> Html {
    Html(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (visible(title)) " · Holdfast" }
                link rel="icon" type="image/svg+xml" href=(assets::url("svg"));
                link rel="stylesheet" href=(assets::url("css"));
                (head)
            }
            (body)
        }
    })
}

/// A whole document as a response.
pub(super) struct Html(Markup);

impl IntoResponse for Html {
    fn into_response(self) -> Response {
        axum::response::Html(self.0.into_string()).into_response()
    }
}
