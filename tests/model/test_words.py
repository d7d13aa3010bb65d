"""The splitting rule and the vocabulary."""

import pytest

from model.words import PADDING, UNKNOWN, Vocabulary, split_words


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("The Red circle", ["the", "red", "circle"]),
        ("dark_red,  circle!", ["dark", "red", "circle"]),
        ("the man's hat", ["the", "man", "s", "hat"]),
        ("bus no.7 (left)", ["bus", "no", "7", "left"]),
        ("the 🔴 one", ["the", "🔴", "one"]),
        ("\uff32\uff45\uff44 ﬁsh", ["red", "fish"]),  # full-width letters and a ligature
        ("der große Bär", ["der", "große", "bär"]),
        ("左边的狗", ["左边的狗"]),
        ("tab\tnew\nline\x00nul", ["tab", "new", "line", "nul"]),
        ("... !?", []),
        ("", []),
    ],
)
def test_splitting(expression: str, words: list[str]) -> None:
    """Case, underscores and punctuation go; letters, digits and symbols stay."""
    assert split_words(expression) == words


def test_unknown_words_have_an_entry_of_their_own() -> None:
    """Known words are numbered from 2, unknown ones share an id that is not the padding's."""
    vocabulary = Vocabulary(["red", "circle"])
    assert vocabulary.ids(["circle", "zebra", "red"]) == [3, UNKNOWN, 2]
    assert vocabulary.spelled([3, UNKNOWN, 2]) == ["circle", "<unk>", "red"]
    assert len({PADDING, UNKNOWN, *vocabulary.ids(["red", "circle"])}) == len(vocabulary) == 4


def test_vocabulary_of_expressions() -> None:
    """Words come most frequent first, ties in alphabetical order."""
    assert Vocabulary.of(["the red one", "The blue_one", "the"]).words == ("the", "one", "blue", "red")


def test_repeated_words_are_refused() -> None:
    """A vocabulary with a word twice would have two truths."""
    with pytest.raises(ValueError, match="red"):
        Vocabulary(["red", "blue", "red"])
