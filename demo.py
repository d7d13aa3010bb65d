"""The whole way in two minutes: start the server, ask three questions about a generated picture, draw the answers.

python -m export.onnx checkpoints/demo.pth && python demo.py
"""

import sys
from pathlib import Path

from PIL import ImageOps

from client.draw import draw, save
from client.errors import GroundingError
from client.library import Client
from serve import Server, ServerError
from serve.repository import RepositoryError
from serve.triton import TritonMissing
from train.data.drawing import draw_scene
from train.data.scenes import make_scene

FOLDER = Path("demo")
SEED, NUMBER = 2026, 4  # a picture that the demo network has not seen
ENLARGED = 3  # so that there is room for labels


def main() -> int:
    """Write demo/picture.jpg and demo/answer.png; returns the exit code."""
    scene, described, random = make_scene(SEED, NUMBER, expressions=8)
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "picture.jpg"
    ImageOps.scale(draw_scene(scene, random), ENLARGED).save(path, quality=90)
    questions = list({thing: words for words, _, thing in described}.values())[:3]  # about three different things
    try:
        print("starting the server ...", flush=True)
        with Server(grpc_port=0, http_port=0, metrics_port=0) as server:
            print(f"asking {server.address}:{server.grpc_port} about {path}")
            with Client(f"{server.address}:{server.grpc_port}") as client:
                answers = client.ground(path, questions)
    except (RepositoryError, TritonMissing, ServerError, GroundingError) as error:
        print(f"demo.py: {error}", file=sys.stderr)
        return 1
    for answer in answers:
        x1, y1, x2, y2 = (round(side) for side in answer.box)
        print(f"  {answer.expression!r}: box {x1},{y1},{x2},{y2}, score {answer.score:.2f}")
    save(draw(path, answers), FOLDER / "answer.png")
    print(f"drawn in {FOLDER / 'answer.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
