//! The routes of the API, listed once: the router and its description are made of the same list.

use std::sync::{Arc, OnceLock};

use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    http::{Method, StatusCode},
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Inbox,
    access::{self, Signed},
    api,
    decisions::{self, Verb},
    desk::Desk,
    events,
    failure::Failure,
    openapi::{self, Access, Operation, Required},
    register::{self, Act},
    reloading, reviews, sign_in,
    strict::{self, Input, Named},
};

/// One operation, and who carries it out.
pub(super) struct Route<D> {
    pub(super) operation: Operation,
    handler: MethodRouter<Arc<Inbox<D>>>,
}

/// What a handler gives, and how the document says it.
pub(super) trait Output: Send + 'static {
    fn respond(self) -> Response;

    fn describe(operation: Operation) -> Operation;
}

impl<T: Serialize + JsonSchema + Send + 'static> Output for Json<T> {
    fn respond(self) -> Response {
        self.into_response()
    }

    fn describe(operation: Operation) -> Operation {
        operation.gives::<T>(StatusCode::OK, "As asked.")
    }
}

/// Every route.
pub(super) fn all<D: Desk>() -> Vec<Route<D>> {
    use Access::{Open, Operators};
    vec![
        Route::get(Open, "/healthz", "healthz", "Whether the process answers", api::healthz),
        Route::get(Open, "/readyz", "readyz", "Whether calls can be taken, and why not", api::readyz),
        Route::get(Open, "/api/v1/openapi.json", "openapi", "This document", document),
        Route::get(Operators, "/api/v1/calls", "calls", "Calls, newest first", api::calls).reads(),
        Route::get(Operators, "/api/v1/calls/{id}", "call", "Everything about one call", api::call)
            .reads()
            .fails(StatusCode::CONFLICT, "Several calls have ids like that."),
        Route::get(
            Operators,
            "/api/v1/pending",
            "pending",
            "What waits for a person, oldest first",
            api::pending,
        )
        .reads(),
        Route::get(Operators, "/api/v1/reviews", "reviews", "Approvals past the gates", reviews::reviews)
            .reads(),
        Route::get(Operators, "/api/v1/verify", "verify", "Checks the journal's chain", api::verify).reads(),
        Route::get(Operators, "/api/v1/servers", "servers", "How the servers are", api::servers),
        Route::get(Operators, "/api/v1/notifications", "notifications", "Who is told", api::notifications),
        Route::get(Operators, "/api/v1/tools", "tools", "Tools, and which of them changed", register::tools),
        Route::get(
            Operators,
            "/api/v1/remembered",
            "remembered",
            "Approvals that speak for later calls",
            register::remembered,
        ),
        Route::get(Operators, "/api/v1/reload", "reloaded", "The last reading of the files", reloading::last),
        Route::act::<reloading::Reloading>(),
        Route::act::<sign_in::SigningIn>(),
        Route::act::<register::Accepting>(),
        Route::act::<register::Remembering>(),
        Route::act::<register::Forgetting>(),
        Route::get(Operators, "/api/v1/events", "events", "News of the journal as they come", events::api)
            .reads(),
        Route::decision::<decisions::Approval>(),
        Route::decision::<decisions::Rejection>(),
        Route::decision::<decisions::SecondThoughts>(),
        Route::decision::<decisions::Edit>(),
        Route::decision::<decisions::Answering>(),
        Route::decision::<decisions::Settlement>(),
        Route::decision::<decisions::Withdrawal>(),
        Route::decision::<decisions::Release>(),
    ]
}

/// The router of all of them; those for operators let nobody else pass.
pub(super) fn router<D: Desk>(inbox: &Arc<Inbox<D>>) -> Router<Arc<Inbox<D>>> {
    let (open, operators): (Vec<_>, Vec<_>) =
        all::<D>().into_iter().partition(|route| route.operation.access == Access::Open);
    let gather = |routes: Vec<Route<D>>| {
        routes.into_iter().fold(Router::new(), |router, Route { operation, handler }| {
            router.route(&operation.path, handler)
        })
    };
    let authenticate = middleware::from_fn_with_state(inbox.clone(), access::authenticate::<D>);
    gather(open).merge(gather(operators).layer(authenticate))
}

impl<D: Desk> Route<D> {
    fn get<I, O, F, Answer>(access: Access, path: &str, name: &str, summary: &'static str, handler: F) -> Self
    where
        I: Input,
        O: Output,
        F: Fn(Arc<Inbox<D>>, I) -> Answer + Clone + Send + Sync + 'static,
        Answer: Future<Output = Result<O, Failure>> + Send + 'static,
    {
        let operation = Operation::new(access, Method::GET, path.to_owned(), name.to_owned(), summary);
        let operation = O::describe(I::describe(operation));
        let handler = on(MethodFilter::GET, move |State(inbox): State<Arc<Inbox<D>>>, request: Request| {
            let handler = handler.clone();
            async move {
                let (mut parts, _) = request.into_parts();
                let answer = match I::read(&mut parts).await {
                    Ok(input) => handler(inbox, input).await,
                    Err(failure) => Err(failure),
                };
                answer.map_or_else(IntoResponse::into_response, O::respond)
            }
        });
        Self { operation, handler }
    }

    fn decision<V: Verb>() -> Self {
        let path = format!("/api/v1/calls/{{id}}/{}", V::NAME);
        let name = V::NAME.to_owned();
        let operation = Operation::new(Access::Operators, Method::POST, path, name, V::SUMMARY);
        let required = if V::unsaid().is_some() { Required::No } else { Required::Yes };
        let operation = Named::describe(operation)
            .with_body::<V>(required)
            .gives::<decisions::Decided>(StatusCode::OK, "It is decided; where the call stands now.");
        Self { operation: posted(operation), handler: on(MethodFilter::POST, decisions::decide::<D, V>) }
            .reads()
    }

    fn act<A: Act>() -> Self {
        let (path, name) = (A::PATH.to_owned(), A::NAME.to_owned());
        let operation = Operation::new(Access::Operators, Method::POST, path, name, A::SUMMARY);
        let operation = A::Target::describe(operation)
            .with_body::<A>(Required::Yes)
            .gives::<A::Given>(StatusCode::OK, "It is done.")
            .fails(StatusCode::BAD_REQUEST, "The request cannot be read.")
            .fails(StatusCode::NOT_FOUND, "There is no such thing.");
        let handler = async |State(inbox): State<Arc<Inbox<D>>>,
                             Extension(signed): Extension<Signed>,
                             request: Request| {
            let done = async {
                signed.require(A::ROLE)?;
                let (mut parts, body) = request.into_parts();
                let target = A::Target::read(&mut parts).await?;
                let act: A = strict::json(Request::from_parts(parts, body), None).await?;
                act.act(&inbox, signed.by.clone(), target).await
            };
            done.await.map_or_else(Failure::into_response, |given| Json(given).into_response())
        };
        Self { operation: posted(operation), handler: on(MethodFilter::POST, handler) }.reads()
    }

    /// It needs the journal.
    fn reads(self) -> Self {
        self.fails(StatusCode::SERVICE_UNAVAILABLE, "The journal cannot be used, or too many ask at once.")
    }

    fn fails(self, status: StatusCode, words: &'static str) -> Self {
        Self { operation: self.operation.fails(status, words), ..self }
    }
}

/// What can go wrong with every body, and with every decision.
fn posted(operation: Operation) -> Operation {
    operation
        .fails(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time.")
        .fails(StatusCode::CONFLICT, "It is no longer what was looked at, or not to be decided like this.")
        .fails(StatusCode::PAYLOAD_TOO_LARGE, "The body is larger than 2 MiB.")
        .fails(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not `application/json`.")
}

/// A document that is there already.
struct Document(Bytes);

impl Output for Document {
    fn respond(self) -> Response {
        ([("content-type", "application/json")], self.0).into_response()
    }

    fn describe(operation: Operation) -> Operation {
        operation.gives::<serde_json::Map<String, serde_json::Value>>(StatusCode::OK, "OpenAPI 3.1.")
    }
}

/// `GET /api/v1/openapi.json`: about the product only, so everybody may read it.
async fn document<D: Desk>(_: Arc<Inbox<D>>, (): ()) -> Result<Document, Failure> {
    static MADE: OnceLock<Bytes> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let routes = all::<D>();
        openapi::document(routes.iter().map(|route| &route.operation)).to_string().into()
    });
    Ok(Document(made.clone()))
}
