"""The HTTP side: tells the services apart, lets faults happen, and takes orders under /_simcloud/."""

import dataclasses
import io
import json
import logging
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol
from xml.sax.saxutils import escape

from werkzeug.wsgi import get_input_stream

from local.simcloud.ec2 import SimulatedInstance
from local.simcloud.faults import Call, Fault, Faults
from local.simcloud.s3 import S3Error, Storage, Target

logger = logging.getLogger("simcloud")

SERVICES = ("ec2", "s3", "secretsmanager", "sts")
STATUSES = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 500: "Internal Server Error"}

Environ = dict[str, Any]
Answer = tuple[str, Any, bytes]


class Cloud(Protocol):
    """What the gateway needs of the simulated cloud that it stands before."""

    faults: Faults

    @property
    def region(self) -> str: ...
    @property
    def ssh_port(self) -> int: ...
    def instances(self, *, ended: bool = False) -> Sequence[SimulatedInstance]: ...
    def kill_instance(self, instance_id: str) -> None: ...
    def freeze_ssh(self, instance_id: str) -> None: ...
    def thaw_ssh(self, instance_id: str) -> None: ...
    def drop_ssh(self, instance_id: str) -> int: ...
    def reboot_instance(self, instance_id: str) -> None: ...
    def fill_disk(self, instance_id: str) -> None: ...
    def free_disk(self, instance_id: str) -> None: ...
    def reset(self) -> None: ...


class Gateway:
    """A WSGI application around moto's."""

    def __init__(self, cloud: Cloud, application: Any, storage: Storage) -> None:
        self._cloud = cloud
        self._application = application
        self._storage = storage

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = get_input_stream(environ).read()
        if environ["PATH_INFO"].startswith("/_simcloud"):
            status, headers, content = self._control(environ, body)
        else:
            status, headers, content = self._answer(environ, body)
        start_response(status, headers)
        return [content]

    def _answer(self, environ: Environ, body: bytes) -> Answer:
        call = identify(environ, body)
        if call.service not in SERVICES:
            message = f"The simulated AWS has {', '.join(SERVICES)}, but not {call.service!r}."
            return error(call, environ, 501, "NotImplemented", message)
        fault = self._cloud.faults.take(call)
        if fault is not None:
            logger.info("fault: %s %s meets %s", call.service, call.action, _summary(fault))
            fault.delay()
            if fault.lose == "request":
                raise ConnectionResetError("The request is lost, as a fault asks for.")
            if fault.code is not None:
                message = fault.message or "This error is a fault that was asked for."
                return error(call, environ, fault.status, fault.code, message)
        answer = self._forward(call, environ, body)
        if fault is not None and fault.lose == "answer":
            raise ConnectionResetError("The answer is lost, as a fault asks for.")
        logger.debug("%s %s %s: %s", call.service, call.region, call.action, answer[0])
        return answer

    def _forward(self, call: Call, environ: Environ, body: bytes) -> Answer:
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        if call.service != "s3":
            return self.moto(environ)
        try:
            return self._storage.handle(environ, body, self.moto)
        except S3Error as refused:
            return error(call, environ, refused.status, refused.code, refused.message)

    def moto(self, environ: Environ) -> Answer:
        """Moto's answer."""
        started: list[Any] = []
        chunks = self._application(
            environ, lambda status, headers, exc_info=None: started.extend((status, headers))
        )
        try:
            content = b"".join(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        return started[0], started[1], content

    def _control(self, environ: Environ, body: bytes) -> Answer:  # noqa: PLR0911 - one for each path
        """Calls that concern the simulation itself."""
        method = environ["REQUEST_METHOD"]
        path = environ["PATH_INFO"].removeprefix("/_simcloud").strip("/").split("/")
        cloud = self._cloud
        try:
            match method, path:
                case "GET", ["health"]:
                    return _json(200, {"ready": True, "ssh_port": cloud.ssh_port, "region": cloud.region})
                case "GET", ["instances"]:
                    return _json(200, [dataclasses.asdict(each) for each in cloud.instances(ended=True)])
                case "POST", ["instances", instance_id, verb] if act := self._verbs().get(verb):
                    act(instance_id)
                    return _json(200, {"id": instance_id, "done": verb})
                case "GET", ["faults"]:
                    return _json(200, cloud.faults.active())
                case "POST", ["faults"]:
                    cloud.faults.add(**json.loads(body))
                    return _json(200, cloud.faults.active())
                case "DELETE", ["faults"]:
                    cloud.faults.clear()
                    return _json(200, [])
                case "POST", ["reset"]:
                    cloud.reset()
                    return _json(200, {"done": "reset"})
        except (TypeError, ValueError) as problem:
            return _json(400, {"error": str(problem)})
        except KeyError as problem:
            return _json(404, {"error": f"There is no running instance {problem}."})
        verbs = "|".join(self._verbs())
        calls = f"GET health, GET instances, POST instances/ID/{verbs}, GET|POST|DELETE faults, POST reset"
        return _json(404, {"error": f"There is no {method} {environ['PATH_INFO']}. The calls are: {calls}."})

    def _verbs(self) -> dict[str, Callable[[str], object]]:
        """What can be done to an instance, by its name in the path."""
        cloud = self._cloud
        return {
            "kill": cloud.kill_instance,
            "freeze": cloud.freeze_ssh,
            "thaw": cloud.thaw_ssh,
            "drop": cloud.drop_ssh,
            "reboot": cloud.reboot_instance,
            "fill-disk": cloud.fill_disk,
            "free-disk": cloud.free_disk,
        }


def identify(environ: Environ, body: bytes) -> Call:
    """Which call of which service a request is."""
    query = environ.get("QUERY_STRING", "")
    scope = environ.get("HTTP_AUTHORIZATION", "")
    if "Credential=" in scope:
        credential = scope.partition("Credential=")[2].partition(",")[0]
    else:
        credential = dict(urllib.parse.parse_qsl(query)).get("X-Amz-Credential", "")
    # It reads key/date/region/service/aws4_request. A link that is not signed this way is S3's.
    fields = credential.split("/")
    region, service = (fields[-3], fields[-2].lower()) if len(fields) >= 5 else ("", "s3")
    request = f"{environ['PATH_INFO']}?{query} {body[:65536].decode('utf-8', errors='replace')}"
    if service == "s3":
        return Call(service, Target.of(environ).action, region, request)
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return Call(service, target.rpartition(".")[2], region, request)
    form = urllib.parse.parse_qs(body.decode("utf-8", errors="replace"))
    action = form.get("Action") or urllib.parse.parse_qs(query).get("Action") or [""]
    # Unquoted, so that `Fault.match` finds values as people write them.
    return Call(service, action[0], region, urllib.parse.unquote_plus(request))


def error(call: Call, environ: Environ, status: int, code: str, message: str) -> Answer:
    """An error as the service would write it."""
    request_id = str(uuid.uuid4())
    inner = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    kind = "text/xml"
    if call.service == "ec2":
        text = (
            f"<Response><Errors><Error>{inner}</Error></Errors><RequestID>{request_id}</RequestID></Response>"
        )
    elif call.service == "s3":
        kind, text = "application/xml", f"<Error>{inner}<RequestId>{request_id}</RequestId></Error>"
    elif "HTTP_X_AMZ_TARGET" in environ:
        kind, text = "application/x-amz-json-1.1", json.dumps({"__type": code, "message": message})
    else:
        text = f"<ErrorResponse><Error>{inner}</Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    content = b"" if environ["REQUEST_METHOD"] == "HEAD" else text.encode()
    headers = [
        ("Content-Type", kind),
        ("Content-Length", str(len(content))),
        ("x-amzn-RequestId", request_id),
    ]
    return f"{status} {STATUSES.get(status, 'Error')}", headers, content


def _summary(fault: Fault) -> str:
    parts = [fault.code or "", f"a lost {fault.lose}" if fault.lose else "", "a hang" if fault.hang else ""]
    if fault.latency_s:
        parts.append(f"{fault.latency_s:g} s of latency")
    return ", ".join(part for part in parts if part)


def _json(status: int, value: Any) -> Answer:
    content = json.dumps(value, default=str, indent=2).encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    return f"{status} {STATUSES.get(status, 'Error')}", headers, content
