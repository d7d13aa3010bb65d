# Everything runs in .venv, which is made with the exact versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test lint clean

setup: .venv/.ready

# uv leaves compiling to Python, which many containers tell to keep nothing: every command would compile PyTorch anew.
unexport PYTHONDONTWRITEBYTECODE

# uv installs in a third of pip's time; pip knows of mirrors that are set up for it alone.
PROJECT := --quiet -c constraints.txt -e '.[client,web,video,serve,train,export,dev]'

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --python $(BIN)/python $(PROJECT) || $(BIN)/pip install $(PROJECT)
	touch $@

demo: setup  ## export the demo network, serve it, ask it three questions about a picture
	$(BIN)/python -m export.onnx checkpoints/demo.pth
	$(BIN)/python demo.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder

clean:  ## all that the commands above make; what was trained stays
	rm -rf .venv demo triton_repo/*/[0-9]* triton_repo/*/warmup
	rm -rf triton_repo/gin*_fp16 triton_repo/gin*_bf16 triton_repo/gin*_int8
