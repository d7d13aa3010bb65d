"""Third-party pickles of plain data, opened without executing anything they name."""

import pickle
from pathlib import Path
from typing import Any, NoReturn

from train.data.annotations import InvalidData


class _PlainUnpickler(pickle.Unpickler):
    """Containers, numbers and strings have opcodes of their own; whatever asks for a name is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise InvalidData(f"it names {module}.{name}; only plain lists, dictionaries, numbers and strings are accepted")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise InvalidData(f"it refers to an object outside the file ({pid!r}); only plain data is accepted")


def load_plain_pickle(path: str | Path) -> Any:
    """The content of a pickle (also of Python 2) of plain data. Raises InvalidData or OSError."""
    with open(path, "rb") as file:
        try:
            return _PlainUnpickler(file, encoding="latin1").load()
        except InvalidData as error:
            raise InvalidData(f"{path} is refused: {error}") from None
        except Exception as error:  # a damaged pickle raises nearly anything
            raise InvalidData(f"{path} cannot be read as a pickle: {type(error).__name__}: {error}") from None
