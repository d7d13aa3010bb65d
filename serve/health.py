"""What is known of a server's health, and the small HTTP endpoint that tells it: /ready, /live and /metrics."""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from serve.models import LOADING
from serve.ports import cannot_listen

CONNECTIONS = 64  # at once; more would take the supervisor's file descriptors, without which it can watch nothing
STALE = 30.0  # seconds after which an answer says nothing about now
HOPELESS = LOADING + 60.0  # seconds without a right answer after which somebody else should start this anew
METRICS = """\
# HELP gin_ready Whether the last health question was answered right.
# TYPE gin_ready gauge
gin_ready {ready}
# HELP gin_question_seconds How long the last right answer to the health question took.
# TYPE gin_question_seconds gauge
gin_question_seconds {seconds:.6f}
# HELP gin_questions_total Health questions by outcome.
# TYPE gin_questions_total counter
{questions}
# HELP gin_recoveries_total What was brought back.
# TYPE gin_recoveries_total counter
{recoveries}
"""


class Health:
    """Written by the supervisor, read by the endpoint's threads."""

    def __init__(self) -> None:
        self.reason = "the server has not started yet"  # why it is not ready; empty if it is
        self._answered = time.monotonic()
        self._seconds = 0.0
        self._questions = {"right": 0, "overloaded": 0, "failed": 0}
        self._recoveries = {"model": 0, "server": 0}

    def answered(self, seconds: float) -> None:
        """A question was answered right in so many seconds."""
        self._answered, self._seconds, self.reason = time.monotonic(), seconds, ""
        self._questions["right"] += 1

    def overloaded(self) -> None:
        """A question was refused because others ask too much, which a server that works does."""
        self._answered, self.reason = time.monotonic(), ""
        self._questions["overloaded"] += 1

    def failed(self, reason: str) -> None:
        """A question was not answered right."""
        self.reason = reason
        self._questions["failed"] += 1

    def stopping(self) -> None:
        """No more questions: what is to be answered should go elsewhere."""
        self.reason = "the server is stopping"

    def recovered(self, what: str) -> None:
        """A `model` was loaded again or the `server` started again."""
        self._recoveries[what] += 1

    def ready(self) -> str:
        """Why not to send requests now, or nothing."""
        if not self.reason and time.monotonic() - self._answered > STALE:
            return f"no question was asked for {STALE:.0f} s"
        return self.reason

    def live(self) -> str:
        """Why this process and all below it should be started anew, or nothing."""
        since = time.monotonic() - self._answered
        return f"no right answer for {since:.0f} s: {self.reason}" if since > HOPELESS else ""

    def metrics(self) -> str:
        """In Prometheus' text format."""
        questions = "\n".join(f'gin_questions_total{{outcome="{k}"}} {v}' for k, v in self._questions.items())
        recoveries = "\n".join(f'gin_recoveries_total{{what="{k}"}} {v}' for k, v in self._recoveries.items())
        ready = int(not self.ready())
        return METRICS.format(ready=ready, seconds=self._seconds, questions=questions, recoveries=recoveries)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.Semaphore(CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hang up at once where there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As the base class."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a prober that hangs up before it is answered."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Endpoint:
    """Serves a Health on a host and a port, a free one if it is 0, until closed. Raises PortInUse."""

    def __init__(self, health: Health, host: str, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # seconds that a connection may be idle

            def do_GET(self) -> None:
                match self.path:
                    case "/ready" | "/live":
                        reason = health.ready() if self.path == "/ready" else health.live()
                        self._respond(503 if reason else 200, f"{reason or 'ok'}\n")
                    case "/metrics":
                        self._respond(200, health.metrics())
                    case _:
                        self._respond(404, "there are /ready, /live and /metrics\n")

            def _respond(self, status: int, text: str) -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing: probes come every few seconds."""

        try:
            self._http = _Http((host, port), Handler)
        except OSError as error:
            raise cannot_listen(host, port, "--health-port", error) from None
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._http.shutdown()
        self._http.server_close()
