"""English plurals to singulars: enough of a lemmatiser to tell whether a noun was seen before."""

IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "oxen": "ox", "dice": "die", "leaves": "leaf", "knives": "knife",
    "wives": "wife", "lives": "life", "shelves": "shelf", "loaves": "loaf", "halves": "half", "scarves": "scarf",
    "wolves": "wolf", "calves": "calf", "hooves": "hoof", "thieves": "thief", "elves": "elf", "selves": "self",
    "policemen": "policeman", "firemen": "fireman", "fishermen": "fisherman", "snowmen": "snowman",
    "businessmen": "businessman", "businesswomen": "businesswoman", "cacti": "cactus", "buses": "bus",
    "movies": "movie", "cookies": "cookie", "ties": "tie", "pies": "pie", "hoodies": "hoodie", "zombies": "zombie",
    "shoes": "shoe", "canoes": "canoe", "toes": "toe", "axes": "axe", "horses": "horse", "houses": "house",
    "nurses": "nurse", "purses": "purse", "vases": "vase", "noses": "nose", "cases": "case", "hoses": "hose",
    "roses": "rose", "blouses": "blouse", "bases": "base", "suitcases": "suitcase", "skis": "ski", "taxis": "taxi",
}  # fmt: skip
# nouns that end like plurals, and are none
SAME = frozenset(
    "glasses sunglasses goggles pants jeans shorts trousers scissors series species clothes overalls leggings tights "
    "headphones binoculars pajamas bus gas grass glass dress class boss bass cross moss canvas cactus circus lens "
    "tennis lacrosse walrus octopus campus chess address mattress harness business princess waitress actress his this "
    "is was has as us its always across".split()
)


def lemma(word: str) -> str:
    """The singular of a noun in lower case; any other word as it is."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word in SAME or len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes", "zes", "oes")):
        return word[:-2]
    return word[:-1]
