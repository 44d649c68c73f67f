"""Whether a text says the same as a right answer; both as `likra.text.normalised` gives them.

Near-misses are not the same: another number, another word, or a negation (English words; Chinese
and Thai ones, which stand before what they negate).
"""

import re
import unicodedata

_UNSPACED = re.compile(  # scripts without spaces between words: Thai to Khmer, Japanese, Chinese
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)
_NUMBER = re.compile(r"\d|^[ivxlcdm]+$")  # Roman ones, too
_NEGATION = r"(?:no|not|never|none|nor|neither|hardly|without|cannot|\S*n t)"
_NEGATED = re.compile(  # "not soluble", "not very soluble"
    rf"(?:^| ){_NEGATION} (?:\S+ )?$|"
    "(?:[\u4e0d\u6ca1\u6c92\u975e\u65e0\u7121\u672a]|\u0e44\u0e21\u0e48)$"
)
_NEGATES = re.compile(rf" ?{_NEGATION}(?: |$)|n? t(?: |$)")


def likeness(text: str, truth: str) -> str | None:
    """How a text says the same as a right answer, if it does; articles before them do not count."""
    text, truth = (re.sub(r"^(?:an?|the) (?=\S)", "", own) for own in (text, truth))
    if _same_but_for_spelling(text, truth):
        return "nearly right"
    if _contains(text, truth):
        return "contains the right answer"
    return "beginning of the right answer" if _is_beginning(text, truth) else None


def _same_but_for_spelling(text: str, truth: str) -> bool:
    """Whether two texts differ in spelling alone: word by word, or in spaces between letters."""
    words, true_words = text.split(), truth.split()
    if "".join(words) == "".join(true_words):
        return re.findall(r"\d+", text) == re.findall(r"\d+", truth)
    if len(words) != len(true_words):
        return False
    return all(_is_spelling_variant(*pair) for pair in zip(words, true_words, strict=True))


def _is_spelling_variant(word: str, true_word: str) -> bool:
    """Whether two words differ in accents or a plural's ending alone.

    A letter more or less may make another word: plant and planet, casual and causal, desert and
    dessert. So a misspelt right answer passes as a wrong one, rather than that these are refused.
    """
    if word == true_word:
        return True
    if any(_NUMBER.search(own) or _UNSPACED.search(own) for own in (word, true_word)):
        return False
    short, long = sorted((_without_accents(word), _without_accents(true_word)), key=len)
    return short == long or (len(short) > 2 and long in {f"{short}s", f"{short}es"})


def _without_accents(word: str) -> str:
    """Without the marks of Latin letters; those of other scripts are letters of their own."""
    parts = unicodedata.normalize("NFD", word)
    return unicodedata.normalize("NFC", re.sub("[\u0300-\u036f]", "", parts))


def _contains(text: str, truth: str) -> bool:
    """Whether a text has another in it, word by word, neither negated nor within a number."""
    pattern = re.escape(truth)
    if not _UNSPACED.search(truth):
        pattern = rf"(?<!\S){pattern}(?!\S)"
    if truth[-1:].isdigit():
        pattern += r"(?! ?[\d/^])"  # 5 in 5.3, which is normalised to "5 3"
    for match in re.finditer(pattern, text):
        before = text[: match.start()]
        within = truth[:1].isdigit() and re.search(r"[\d/^-] ?$", before)
        if not within and not _NEGATED.search(before):
            return bool(truth)
    return False


def _is_beginning(text: str, truth: str) -> bool:
    """Whether a text is cut off within another, as a sample may be, and says nothing else."""
    rest = truth[len(text) :]
    if not truth.startswith(text) or not (" " in text or rest.startswith(" ")):
        return False
    is_other_number = text[-1].isdigit() and re.match(r" ?[\d/^]", rest)
    return not is_other_number and not _NEGATES.match(rest)
