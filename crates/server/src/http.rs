//! `/metrics`, `/healthz`, `/readyz`, and the small client that a container's health check needs.

use std::{
    convert::Infallible,
    io::{Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::health::Readiness;

/// More scrapers than this at once wait in the socket.
const CONNECTIONS_MAX: usize = 32;
/// A scraper that does not say what it wants within this time is dropped.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest life of one connection: a stuck reader must not keep a place for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// What the pages are made of.
pub(crate) trait Pages: Send + Sync + 'static {
    /// The text of `/metrics`.
    fn metrics(&self) -> String;
    /// The answer of `/readyz`.
    fn readiness(&self) -> Readiness;
}

/// Answers until it is told to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    pages: Arc<dyn Pages>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: it passes, and must not spin.
                warn!(%error, "accept on the http listener");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let pages = Arc::clone(&pages);
        let shutdown = shutdown.clone();
        tasks.spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, pages.as_ref());
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                result = tokio::time::timeout(CONNECTION_LIFE, connection) => {
                    if let Ok(Err(error)) = result {
                        debug!(%error, "http connection ended");
                    }
                }
                () = shutdown.cancelled() => {}
            }
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, pages: &dyn Pages) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n");
    }
    match request.uri().path() {
        "/metrics" => text(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            pages.metrics(),
        ),
        // That this is answered is the answer.
        "/healthz" => text(StatusCode::OK, "application/json", "{\"healthy\":true}\n"),
        "/readyz" => {
            let readiness = pages.readiness();
            let status = if readiness.is_ready() {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            text(status, "application/json", readiness.json())
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "text/plain",
            "/metrics, /healthz or /readyz\n",
        ),
    }
}

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    response
}

/// `GET url`, for images without curl: the body where the status is 200, what is wrong otherwise.
pub fn healthcheck(url: &str, timeout: Duration) -> Result<String, String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or("the URL must start with http://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = host
        .to_socket_addrs()
        .map_err(|error| format!("{host}: {error}"))?
        .next();
    let address = address.ok_or_else(|| format!("{host} has no address"))?;
    let failed = |error: std::io::Error| format!("{url}: {error}");
    let mut stream = TcpStream::connect_timeout(&address, timeout).map_err(failed)?;
    stream.set_read_timeout(Some(timeout)).map_err(failed)?;
    stream.set_write_timeout(Some(timeout)).map_err(failed)?;
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream
        .take(1 << 20)
        .read_to_string(&mut answer)
        .map_err(failed)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or((answer.as_str(), ""));
    let status = head.split(' ').nth(1).unwrap_or("no status");
    if status == "200" {
        Ok(body.to_owned())
    } else {
        Err(format!("{status}: {}", body.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(bool);

    impl Pages for Fixed {
        fn metrics(&self) -> String {
            "up 1\n".to_owned()
        }

        fn readiness(&self) -> Readiness {
            let missing = if self.0 {
                Vec::new()
            } else {
                vec!["no quorum".to_owned()]
            };
            Readiness { missing }
        }
    }

    async fn get(pages: Fixed, path: &str) -> Result<String, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(serve(
            listener,
            Arc::new(pages),
            tasks.clone(),
            shutdown.clone(),
        ));
        let url = format!("http://{address}{path}");
        let answer = tokio::task::spawn_blocking(move || healthcheck(&url, Duration::from_secs(5)));
        let answer = answer.await.unwrap();
        shutdown.cancel();
        tasks.close();
        tasks.wait().await;
        answer
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_page_answers() {
        assert_eq!(get(Fixed(true), "/metrics").await, Ok("up 1\n".to_owned()));
        assert_eq!(
            get(Fixed(true), "/readyz").await,
            Ok("{\"ready\":true}\n".to_owned())
        );
        let not_ready = get(Fixed(false), "/readyz").await.unwrap_err();
        assert!(
            not_ready.starts_with("503") && not_ready.contains("no quorum"),
            "{not_ready}"
        );
        assert!(get(Fixed(false), "/healthz").await.is_ok());
        assert!(
            get(Fixed(true), "/other")
                .await
                .unwrap_err()
                .starts_with("404")
        );
    }
}
