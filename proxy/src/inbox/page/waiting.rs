//! *Waiting*: what a person is asked, grouped by run, like beside like, a page at a time.
//!
//! Only the calls of the page are read whole; the rest is counted by their lines.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use holdfast_store::{Filter, Journal, JournalError, Millis, State as CallState, Summary, hash_fields};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    card::{self, Known, tool_name},
    query_value,
    session::Session,
    shell::{self, Counts, Frame, Here, Watch, csrf},
    text::{counted, grouped, shown},
};
use crate::{
    config::Role,
    driver::now,
    inbox::{Inbox, api::blocking, desk::Desk},
    report::Report,
};

/// Calls on one page.
pub(super) const PAGE: usize = 50;

/// What is to be shown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    server: String,
    tool: String,
    agent: String,
    run: String,
    page: usize,
    flash: String,
}

/// What was found.
struct Found {
    groups: Vec<Group>,
    facets: [Facet; 4],
    matching: usize,
    page: usize,
    counts: Counts,
}

/// Values of one field, with how often they occur.
struct Facet {
    name: &'static str,
    label: &'static str,
    chosen: String,
    values: Vec<(String, usize)>,
}

/// The calls of one run, or of one agent outside of any.
struct Group {
    run: Option<String>,
    agent: String,
    total: usize,
    clusters: Vec<Cluster>,
}

/// The calls of one tool in a group.
struct Cluster {
    server: String,
    tool: String,
    total: usize,
    calls: Vec<Summary>,
    /// Those of this page.
    shown: Vec<Known>,
}

/// `GET /`
pub(super) async fn show<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(session): Extension<Session>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let journal = inbox.desk.journal();
    let flash = inbox.page.sessions.flash(&session, &wanted.flash);
    let asked = wanted.clone();
    match blocking(move || find(&*journal, &asked)).await {
        Ok(found) => {
            let frame = Frame {
                session: &session,
                here: Here::Waiting,
                title: "Waiting",
                counts: found.counts,
                flash,
                watch: Watch::Everything,
            };
            shell::page(&frame, &body(&found, &wanted, &session, now())).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

/// The page for a journal that cannot be read.
pub(super) fn unavailable(error: &JournalError) -> Response {
    shell::problem(
        axum::http::StatusCode::SERVICE_UNAVAILABLE,
        &Report::journal_unavailable(&error.to_string()),
    )
}

fn find(journal: &dyn Journal, wanted: &Wanted) -> Result<Found, JournalError> {
    let filter = Filter { states: vec![CallState::Asking], limit: usize::MAX, ..Filter::default() };
    let mut all = journal.list(&filter)?;
    all.reverse();
    let counts = Counts { asking: all.len(), ..Counts::read(journal)? };
    let facets = facets(&all, wanted);
    all.retain(|call| wanted.admits(call));
    let matching = all.len();
    let pages = matching.div_ceil(PAGE).max(1);
    let page = wanted.page.clamp(1, pages);
    let mut groups = group(all);
    let mut place = 0;
    let on_page = (page - 1) * PAGE..page * PAGE;
    for cluster in groups.iter_mut().flat_map(|group| &mut group.clusters) {
        for call in std::mem::take(&mut cluster.calls) {
            if on_page.contains(&place)
                && let Some(known) = Known::read(journal, call.call)?.filter(|known| known.hold.is_some())
            {
                cluster.shown.push(known);
            }
            place += 1;
        }
    }
    for group in &mut groups {
        group.clusters.retain(|cluster| !cluster.shown.is_empty());
    }
    groups.retain(|group| !group.clusters.is_empty());
    Ok(Found { groups, facets, matching, page, counts })
}

impl Wanted {
    fn admits(&self, call: &Summary) -> bool {
        let is = |wanted: &str, value: &str| wanted.is_empty() || wanted == value;
        is(&self.server, &call.server)
            && is(&self.tool, &call.tool)
            && is(&self.agent, &call.principal)
            && is(&self.run, call.run.as_deref().unwrap_or_default())
    }

    /// The address of another page of the same.
    fn page_url(&self, page: usize) -> String {
        let fields =
            [("server", &self.server), ("tool", &self.tool), ("agent", &self.agent), ("run", &self.run)];
        let mut url = format!("/?page={page}");
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            url.push_str(&format!("&{name}={}", query_value(value)));
        }
        url
    }
}

fn facets(all: &[Summary], wanted: &Wanted) -> [Facet; 4] {
    let facet = |name, label, chosen: &str, of: fn(&Summary) -> Option<&str>| {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for value in all.iter().filter_map(of) {
            *counts.entry(value).or_default() += 1;
        }
        let mut values: Vec<(String, usize)> =
            counts.into_iter().map(|(value, count)| (value.to_owned(), count)).collect();
        values.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        Facet { name, label, chosen: chosen.to_owned(), values }
    };
    [
        facet("server", "Server", &wanted.server, |call| Some(&call.server)),
        facet("tool", "Tool", &wanted.tool, |call| Some(&call.tool)),
        facet("agent", "Agent", &wanted.agent, |call| Some(&call.principal)),
        facet("run", "Run", &wanted.run, |call| call.run.as_deref()),
    ]
}

/// Groups by their oldest call, tools in a group likewise, calls by age.
fn group(oldest_first: Vec<Summary>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<(Option<String>, String), usize> = HashMap::new();
    let mut clusters: HashMap<(usize, String, String), usize> = HashMap::new();
    for call in oldest_first {
        // The same run of another agent is another run.
        let key = (call.run.clone(), call.principal.clone());
        let at = *places.entry(key).or_insert_with(|| {
            let (run, agent) = (call.run.clone(), call.principal.clone());
            groups.push(Group { run, agent, total: 0, clusters: Vec::new() });
            groups.len() - 1
        });
        let group = &mut groups[at];
        group.total += 1;
        let key = (at, call.server.clone(), call.tool.clone());
        let place = *clusters.entry(key).or_insert_with(|| {
            let (server, tool) = (call.server.clone(), call.tool.clone());
            group.clusters.push(Cluster { server, tool, total: 0, calls: Vec::new(), shown: Vec::new() });
            group.clusters.len() - 1
        });
        group.clusters[place].total += 1;
        group.clusters[place].calls.push(call);
    }
    groups
}

fn body(found: &Found, wanted: &Wanted, session: &Session, now: Millis) -> Markup {
    let pages = found.matching.div_ceil(PAGE).max(1);
    html! {
        div.title {
            h1 { "Waiting for a person" }
            @if found.counts.asking > 1 { (filters(&found.facets)) }
        }
        p.more { a href="/remembered" { "Remembered decisions" } }
        @if found.counts.asking == 0 {
            (nothing(found.counts))
        } @else if found.matching == 0 {
            p.empty { "None of the " (counted(found.counts.asking, "waiting call")) " fits the filter. "
                a href="/" { "Show all" } }
        }
        @for group in &found.groups { (section(group, session, now)) }
        @if pages > 1 { (pager(found, wanted, pages)) }
    }
}

fn nothing(counts: Counts) -> Markup {
    html! {
        div.empty {
            p.big { "Nothing waits for you." }
            p.dim { "When an agent asks for something that the policy wants a person to see, it appears here by itself." }
            @if counts.doubtful > 0 {
                p { a href="/doubt" { (counted(counts.doubtful, "call")) " in doubt" } " should be settled." }
            }
        }
    }
}

fn filters(facets: &[Facet; 4]) -> Markup {
    html! {
        form.filters method="get" action="/" role="search" data-auto="" {
            @for facet in facets.iter().filter(|facet| facet.values.len() > 1 || !facet.chosen.is_empty()) {
                label {
                    span.dim { (facet.label) }
                    select name=(facet.name) {
                        option value="" { "all" }
                        @for (value, count) in facet.values.iter().take(200) {
                            option value=(value) selected[*value == facet.chosen] {
                                (crate::inbox::visible::visible(value)) " (" (grouped(*count)) ")"
                            }
                        }
                    }
                }
            }
            button.for-no-script type="submit" { "Filter" }
        }
    }
}

fn section(group: &Group, session: &Session, now: Millis) -> Markup {
    html! {
        section.group data-key={ "group-" (group_id(group)) } {
            h2 {
                @match &group.run {
                    Some(run) => { "Run " span.name { (shown(run)) } " of " span.name { (shown(&group.agent)) } }
                    None => { "Outside of any run, " span.name { (shown(&group.agent)) } }
                }
                " " span.count { (grouped(group.total)) }
            }
            @for cluster in &group.clusters {
                @let batch = batch_id(group, cluster);
                @let can = cluster.shown.len() > 1 && session.role >= Role::Approver;
                div.cluster data-key={ "cluster-" (batch) } {
                    @if can { (batch_form(cluster, &batch, session)) }
                    @for known in &cluster.shown {
                        (card::waiting(known, session, can.then_some(batch.as_str()), now))
                    }
                    @if cluster.shown.len() < cluster.total {
                        p.dim.more {
                            (grouped(cluster.shown.len())) " of " (grouped(cluster.total)) " of "
                            (tool_name(&cluster.server, &cluster.tool)) " are on this page."
                        }
                    }
                }
            }
        }
    }
}

/// Decides on those that are ticked; each of them shows its arguments and brings its own digest.
fn batch_form(cluster: &Cluster, id: &str, session: &Session) -> Markup {
    html! {
        form.batch id=(id) method="post" action="/batch" data-key={ "batch-" (id) } {
            (csrf(session))
            input type="hidden" name="back" value="/";
            label.all hidden {
                input type="checkbox" data-all=(id);
                " all " (cluster.shown.len()) " shown"
            }
            span.what { (tool_name(&cluster.server, &cluster.tool)) " × " (grouped(cluster.total)) }
            div.actions {
                input name="reason" placeholder="Reason, if rejected" aria-label="Reason, if rejected"
                    autocomplete="off" maxlength="2000";
                button type="submit" name="do" value="approve" { "Approve ticked" }
                button.danger type="submit" name="do" value="reject" { "Reject ticked" }
            }
        }
    }
}

fn group_id(group: &Group) -> String {
    let run = group.run.as_deref().unwrap_or_default();
    hash_fields("holdfast/page-group", &[run.as_bytes(), group.agent.as_bytes()]).to_string()[..12].to_owned()
}

fn batch_id(group: &Group, cluster: &Cluster) -> String {
    let fields = [group_id(group), cluster.server.clone(), cluster.tool.clone()];
    let fields: Vec<&[u8]> = fields.iter().map(|field| field.as_bytes()).collect();
    format!("b{}", &hash_fields("holdfast/page-batch", &fields).to_string()[..12])
}

fn pager(found: &Found, wanted: &Wanted, pages: usize) -> Markup {
    let first = (found.page - 1) * PAGE + 1;
    let last = (found.page * PAGE).min(found.matching);
    html! {
        nav.pager aria-label="Pages" {
            @if found.page > 1 { a.button rel="prev" href=(wanted.page_url(found.page - 1)) { "Earlier" } }
            span { (grouped(first)) "–" (grouped(last)) " of " (grouped(found.matching)) }
            @if found.page < pages { a.button rel="next" href=(wanted.page_url(found.page + 1)) { "Later" } }
        }
    }
}

/// The calls of a page, for tests.
#[cfg(test)]
pub(super) fn on_page(journal: &dyn Journal, page: usize) -> Vec<holdfast_store::CallId> {
    let found = find(journal, &Wanted { page, ..Wanted::default() }).expect("readable");
    let clusters = found.groups.iter().flat_map(|group| &group.clusters);
    clusters.flat_map(|cluster| &cluster.shown).map(Known::id).collect()
}
