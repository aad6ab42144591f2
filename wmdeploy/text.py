"""Texts that may come from strangers, made fit to be shown: names in files, words of libraries."""

import re

# What a terminal obeys instead of showing it, and what turns the direction of writing. A new line
# and a tab stay; so do joiners, which pictures of file names are made of.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# What ONNX Runtime adds to its words: a code, and the place in its source, which is a file with the
# name of a function, or a whole path with the whole signature.
_ORT_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_ORT_PLACE = re.compile(
    r"/\S+\.(?:cc|h|cpp|cu|cuh):\d+ [^()]*\((?:[^()]|\([^()]*\))*\)(?: const)?(?: \[with [^]]*\])? "
    r"|\b\w+\.(?:cc|h|cpp|cu|cuh):\d+ \w+ "
)
LONGEST_LINE = 1000  # characters: room for a path and advice, not for a file's content


def printable(text: str) -> str:
    r"""The text with control characters as escapes: ESC becomes the four characters `\x1b`.

    Of names that are no UTF-8, as files may have, each byte that is none becomes `?`.
    """
    text = text.encode("utf-8", "replace").decode()
    return _OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    """The text in one printable line; of one too long, begin and end, where the advice is.

    What only a developer of ONNX Runtime needs of its words is left out.
    """
    text = _ORT_PLACE.sub("", _ORT_CODE.sub("", text))
    line = printable(" ".join(text.split()))
    if len(line) <= longest:
        return line
    tail = longest // 3
    return f"{line[: longest - tail - 5]} ... {line[-tail:]}"
