//! How agents reach the bank: standard input and output, or streamable HTTP.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::serve::ListenerExt;
use rmcp::RoleServer;
use rmcp::model::JsonRpcMessage;
use rmcp::service::{RxJsonRpcMessage, ServerInitializeError, TxJsonRpcMessage};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{
    StdioReader, StdioWriter, StreamableHttpServerConfig, StreamableHttpService, Transport, stdio_pipes,
};
use tokio::net::TcpListener;

use crate::server::Bank;

/// Serves one client until it closes our input.
pub(crate) async fn stdio(bank: Arc<Bank>) -> Result<(), String> {
    let (reader, writer) = stdio_pipes();
    let transport = Stdio { lines: AsyncRwTransport::new_server(reader, writer), bank: bank.clone() };
    match rmcp::serve_server(bank, transport).await {
        Ok(service) => service.waiting().await.map(drop).map_err(|e| format!("the server stopped: {e}")),
        Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
        Err(error) => Err(format!("the client did not introduce itself: {error}")),
    }
}

/// Serves at `/mcp` until the process ends; says where on standard output.
pub(crate) async fn http(bank: Arc<Bank>, address: &str) -> Result<(), String> {
    let cannot = |error: std::io::Error| format!("cannot listen on {address}: {error}");
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let local = listener.local_addr().map_err(cannot)?;
    let config = StreamableHttpServerConfig::default()
        .with_allowed_origins(["http://127.0.0.1:*", "http://localhost:*"]);
    let mut sessions = LocalSessionManager::default();
    // By default a session ends after five silent minutes even while a tool is running.
    sessions.session_config.keep_alive = None;
    let service = StreamableHttpService::new(move || Ok(bank.clone()), Arc::new(sessions), config);
    let router = Router::new().nest_service("/mcp", service);
    writeln!(std::io::stdout(), "bank http://{local}/mcp")
        .map_err(|e| format!("cannot write to stdout: {e}"))?;
    let listener = listener.tap_io(|stream| {
        // Answers are small and must not wait for more; a socket that refuses the option still works.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await.map_err(|e| format!("the server stopped: {e}"))
}

/// Lines over standard input and output, with some answers sent twice.
struct Stdio {
    lines: AsyncRwTransport<RoleServer, StdioReader, StdioWriter>,
    bank: Arc<Bank>,
}

type Sending = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

impl Transport<RoleServer> for Stdio {
    type Error = std::io::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let again = match &message {
            JsonRpcMessage::Response(response) if self.bank.take_twice(&response.id) => Some(message.clone()),
            _ => None,
        };
        // Boxed, so that the first does not seem to keep the borrow that the second needs.
        let first: Sending = Box::pin(self.lines.send(message));
        let second: Option<Sending> = again.map(|message| Box::pin(self.lines.send(message)) as Sending);
        async move {
            first.await?;
            match second {
                Some(second) => second.await,
                None => Ok(()),
            }
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        self.lines.receive().await
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.lines.close().await
    }
}
