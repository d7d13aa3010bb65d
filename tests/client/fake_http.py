"""The HTTP half of the stand-in for Triton: the same scripts, in the other form of the Open Inference Protocol."""

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NoReturn

import grpc
from aiohttp import web
from fake_kserve import CODE, Asked, FakeServer, answer, strings, top_of

# What Triton, or a proxy before it, answers for each of gRPC's errors; anything else is 500.
HTTP_STATUS = {
    CODE.INVALID_ARGUMENT: 400,
    CODE.NOT_FOUND: 404,
    CODE.RESOURCE_EXHAUSTED: 413,
    CODE.CANCELLED: 499,
    CODE.UNAVAILABLE: 503,
    CODE.DEADLINE_EXCEEDED: 504,
}


class _Aborted(Exception):
    pass


class _Context:
    """As much of gRPC's context as the scripts use."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []

    def abort(self, code: grpc.StatusCode, text: str) -> NoReturn:
        raise _Aborted(code, text)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.append(callback)
        return True


@contextmanager
def running_http(fake: FakeServer, context: ssl.SSLContext | None = None) -> Iterator[FakeServer]:
    """Serve `fake` over HTTP, encrypted with `context` if there is one."""
    contexts: list[_Context] = []
    pool = ThreadPoolExecutor(4)

    async def infer(request: web.Request) -> web.Response:
        body = await request.read()
        size = int(request.headers["Inference-Header-Content-Length"])
        header, raw, at = json.loads(body[:size]), {}, size
        for tensor in header["inputs"]:
            end = at + tensor["parameters"]["binary_data_size"]
            raw[tensor["name"]] = body[at:end]
            at = end
        (image,), expressions = strings(raw["IMAGE"]), strings(raw["EXPRESSION"])
        shapes = {"IMAGE": [1], "EXPRESSION": [len(expressions)], "TOP_K": [1]}
        assert {tensor["name"]: tensor["shape"] for tensor in header["inputs"]} == {name: shapes[name] for name in raw}
        top, outputs = top_of(raw.get("TOP_K")), [output["name"] for output in header["outputs"]]
        timeout = header.get("parameters", {}).get("timeout", 0)
        fake.asked.append(Asked(image, expressions, top, outputs, timeout, timeout / 1e6, request.match_info["name"]))
        contexts.append(shim := _Context())
        act = fake.script.pop(0) if fake.script else answer
        try:
            response = await asyncio.get_running_loop().run_in_executor(pool, act, fake, shim)
        except _Aborted as error:
            code, text = error.args
            return web.json_response({"error": text}, status=HTTP_STATUS.get(code, 500))
        contents = response.raw_output_contents
        described = [
            {"name": o.name, "datatype": o.datatype, "shape": list(o.shape), "parameters": {"binary_data_size": len(r)}}
            for o, r in zip(response.outputs, contents, strict=True)
        ]
        head = json.dumps({"model_name": "gin", "model_version": "1", "outputs": described}).encode()
        return web.Response(body=head + b"".join(contents), headers={"Inference-Header-Content-Length": str(len(head))})

    async def ready(request: web.Request) -> web.Response:
        return web.Response(status=200 if fake.model_is_ready and request.match_info["name"] == fake.model else 400)

    application = web.Application(client_max_size=2**30)
    application.router.add_post("/v2/models/{name}/infer", infer)
    application.router.add_get("/v2/models/{name}/ready", ready)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = web.AppRunner(application, shutdown_timeout=0.1)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", fake.port, ssl_context=context)
        await site.start()
        return int(runner.addresses[0][1])

    fake.port = asyncio.run_coroutine_threadsafe(start(), loop).result()
    fake.scheme = "https://" if context else "http://"
    try:
        yield fake
    finally:
        for shim in contexts:
            for callback in shim.callbacks:
                callback()
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        pool.shutdown()
