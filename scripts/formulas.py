"""The formulas at the heads of files, `mu_t = b1 * mu_{t-1} + (1 - b1) * g_t`, as mathematics that a page sets.

A head writes a formula on a line, aligned by spaces, with remarks behind it or in parentheses. Here each line is cut
where two spaces or more stand, each piece is read as mathematics if it looks like it, else as words, and what comes
out is MyST: pieces that may stand side by side or below each other, so that none runs off a narrow page.
"""

import re

__all__ = ["latex", "typeset"]

GREEK = set(
    """
    alpha beta gamma delta eps epsilon zeta eta theta lambda mu nu xi pi rho sigma tau phi chi psi omega
    """.split()
)
GREEK_AS = {"eps": r"\varepsilon", "epsilon": r"\varepsilon", "phi": r"\varphi"}
FUNCTIONS = set(
    """
    max min exp ln log sign tanh sigmoid cos sin clip rms mean sum std trace expm cbrt wrap floor inner ravel unravel
    Newton-Schulz measure schedule update link_i step fast factory policy_apply fold_in words where_ arg relu soft orth qr svd
    diag median var
    """.split()
)
WORDS = set(
    """
    an no about the of over at in on by with without for from to then else if or and is was are not where when which whose while until
    first second last later step steps in place every each its it is new old none all others rest nothing moves stays per leaf
    leaves entry entries axis axes row rows column columns direction optimizer base gradient gradients diagonal estimate random
    signs here there once as so than that this these those one two both either else; but into after before same other number
    numbers standard normal independent weights members pairs best worst only also just still given clipped divided kept held
    taken drawn
    """.split()
)
TOKEN = re.compile(
    r"\s+|[\w/]+\.py\b|[A-Za-z][A-Za-z]*(?:-[A-Z][a-z]+)?(?:_[A-Za-z][A-Za-z0-9]*)*[0-9]*|\d+(?:\.\d+)?(?:e-?\d+)?|<-|->|<=|>=|!=|==|\+=|\+-|\|\||\.\.\.|<|>|.",
    re.S,
)
OPERATORS = {
    "<-": r"\leftarrow ",
    "->": r"\to ",
    "<=": r"\le ",
    ">=": r"\ge ",
    "!=": r"\ne ",
    "==": "=",
    "+=": r"\;\text{+=}\;",
    "+-": r"\pm ",
    "...": r"\dots ",
    "*": r"\,",
    "%": r"\%",
    "~": r"\sim ",
    "<": "<",
    ">": ">",
    "#": r"\#",
    "&": r"\&",
    "$": r"\$",
    "°": r"^{\circ}",
}


def _letters(letters: str) -> str:
    low = letters.lower()
    if low in GREEK:
        base = GREEK_AS.get(low, "\\" + low)
        return base if letters == low else "\\" + letters
    return letters if len(letters) == 1 else rf"\mathrm{{{letters}}}"


def _name(word: str, more: str = "") -> str:
    """An identifier: a letter, a Greek one, one with a number or an index, or a name of several letters; `more` is a further index."""
    head, _, tail = word.partition("_")
    match = re.fullmatch(r"([A-Za-z]+?)(\d*)", head)
    short = match is not None and (len(match[1]) == 1 or match[1].lower() in GREEK)
    if match is None or (tail and not short and not (len(tail) == 1 or tail.isdigit())):
        whole = word.replace("_", r"\_")
        return rf"\mathrm{{{whole}}}" + (f"_{{{more}}}" if more else "")
    parts = [part if len(part) == 1 or part.isdigit() else _letters(part) for part in (match[2], *tail.split("_")) if part]
    parts = [part if len(part) < 2 or part[0] == "\\" or part.isdigit() else rf"\mathrm{{{part}}}" for part in parts] + (
        [more] if more else []
    )
    return _letters(match[1]) + (f"_{{{','.join(parts)}}}" if parts else "")


class _Reader:
    """Reads one piece of a line, token by token."""

    def __init__(self, text: str):
        self.tokens = TOKEN.findall(text)
        self.at = 0
        self.bars = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def group(self, close: str) -> str:
        """What stands up to the closing bracket, which is taken too."""
        parts: list[str] = []
        while self.at < len(self.tokens):
            if self.peek() == close:
                self.take()
                return "".join(parts)
            parts.append(self.piece())
        raise ValueError(f"no closing {close}")

    def script(self) -> str:
        """What stands behind `_` or `^`."""
        if self.peek() == "{":
            self.take()
            return self.group("}")
        if self.peek() == "(":
            self.take()
            return self.group(")")
        sign = self.take() if self.peek() in ("-", "+") else ""
        word = self.take()
        inner = "".join(_Reader(word).all())
        if self.peek() == "," and self.at + 1 < len(self.tokens) and re.fullmatch(r"[a-z]", self.tokens[self.at + 1]):
            self.take()
            inner += "," + self.take()
            if self.peek() == "-":
                inner += self.take() + self.take()
        return sign + inner

    def all(self) -> list[str]:
        parts = []
        while self.at < len(self.tokens):
            parts.append(self.piece())
        return parts

    def piece(self) -> str:
        token = self.take()
        if token.isspace():
            before = self.tokens[self.at - 2] if self.at > 1 else ""
            product = (
                before
                and (before[-1].isalnum() or before in ")]}'|")
                and (self.peek()[:1].isalnum() or self.peek() in ("(", "[", "|", "||"))
            )
            return r"\," if product else " "
        if token.endswith(".py"):
            return rf"\text{{ {token} }}"
        if token == "sqrt" and self.peek() == "(":
            self.take()
            return rf"\sqrt{{{self.group(')')}}}"
        if token == "cbrt" and self.peek() == "(":
            self.take()
            return rf"\sqrt[3]{{{self.group(')')}}}"
        if token == "sum" and self.peek() != "(":
            return r"\sum "
        if token in ("(", "["):
            close = {"(": ")", "[": "]"}[token]
            return f"{token}{self.group(close)}{close}"
        if token == "{":
            return r"\{" + self.group("}") + r"\}"
        if token == "||":
            self.bars += 1
            return r"\lVert " if self.bars % 2 else r"\rVert "
        if token == "|":
            self.bars += 1
            return r"\lvert " if self.bars % 2 else r"\rvert "
        if token == "_":
            return rf"_{{{self.script()}}}"
        if token == "^":
            following = self.peek()
            if following == "" or following.isspace() or following in (")", ","):
                raise ValueError("a hat that was not read with its letter")
            return rf"^{{{self.script()}}}"
        if token == "'":
            return "'"
        if token in OPERATORS:
            return OPERATORS[token]
        if token[0].isalpha():
            return self.word(token)
        if token[0].isdigit():
            return re.sub(r"e(-?)0*(\d+)$", r"\\cdot 10^{\1\2}", token)
        if token in "+-/=,;:.!?)]}":
            if token in ")]}":
                raise ValueError(f"{token} closes nothing")
            return {"?": r"\text{?}", ";": r";\;", ",": r",\,"}.get(token, token)
        return rf"\text{{{token}}}"

    def word(self, token: str) -> str:
        if self.peek() == "^" and (self.at + 1 >= len(self.tokens) or self.tokens[self.at + 1][0] in " ),"):
            self.take()
            return rf"\hat{{{_name(token)}}}"
        if (token in WORDS and not self.between_operators()) or self.is_prose(token):
            return rf"\text{{ {token} }}"
        if token == "a" and re.fullmatch(r"[a-z]{3,}", "".join(self.tokens[self.at + 1 : self.at + 2])) and self.peek().isspace():
            return r"\text{ a }"
        if token in FUNCTIONS:
            return rf"\operatorname{{{token}}}".replace("_", r"\_")
        if self.peek() == "_":  # e_x_{t-1}
            self.take()
            return _name(token, self.script())
        ahead = "".join(self.tokens[self.at : self.at + 2])
        if re.fullmatch(r",[a-z]", ahead) and re.search(r"_[a-z]$", token):  # mu_i,t-1
            self.take()
            more = self.take() + ("".join((self.take(), self.take())) if self.peek() == "-" else "")
            return _name(token, more)
        return _name(token)

    def is_prose(self, token: str) -> bool:
        """Whether a word that no list knows stands beside another word, with a space between them and nothing else."""
        sides = ["".join(self.tokens[self.at + 1 : self.at + 2]) if self.peek().isspace() else ""]
        sides.append(self.tokens[self.at - 3] if self.at > 2 and self.tokens[self.at - 2].isspace() else "")
        return _is_plain(token) and any(_is_plain(side) or side in WORDS for side in sides)

    def between_operators(self) -> bool:
        before = next((token for token in reversed(self.tokens[: self.at - 1]) if not token.isspace()), "")
        after = next((token for token in self.tokens[self.at :] if not token.isspace()), "")
        return (before in ("/", "*", "+", "(", ",") and after in ("/", "*", "+", ")", ",", "")) or after in ("/", "*")


def _is_plain(word: str) -> bool:
    return bool(re.fullmatch(r"[a-z]{3,}", word)) and word not in FUNCTIONS and word not in GREEK


SIGNS = re.compile(r"<-|->|[=+*/^<>|~]|_\{|\bsqrt\(|\bmax\(|\bmin\(")


def _is_prose(piece: str) -> bool:
    bare = piece.strip()
    words = re.findall(r"(?<![\w])[A-Za-z]{2,}(?![\w(])", re.sub(r"`[^`]*`", "", bare))
    plain = [
        word
        for word in words
        if word.lower() in WORDS or (word.islower() and word not in FUNCTIONS and word not in GREEK and len(word) > 3)
    ]
    if bare.endswith(":") and not SIGNS.search(bare):
        return True
    if not SIGNS.search(bare):
        return len(plain) >= 1 or not re.fullmatch(r"[\w\s{}(),.\-']+", bare)
    return bool(re.search(r"\([^()]*(?:\b[a-z]{2,}\b[ ,]*){5,}", bare))  # brackets full of words


def latex(piece: str) -> str:
    """One formula in LaTeX.

    Raises:
        ValueError: its brackets do not match.
    """
    piece = re.sub(r"<\s*([^<>=]+?)\s*,\s*([^<>=]+?)\s*>", r"LANGLE \1 , \2 RANGLE", piece)
    text = "".join(_Reader(piece).all()).strip()
    text = text.replace(r"\mathrm{LANGLE}\;", r"\langle ").replace(r"\mathrm{LANGLE}", r"\langle ").replace(r"\mathrm{RANGLE}", r"\rangle ")
    joined = re.compile(r"\\text\{ ([^{}]*) \}(?:\s|\\,|\\;)*\\text\{ ([^{}]*) \}")
    while joined.search(text):
        text = joined.sub(r"\\text{ \1 \2 }", text)
    text = text.replace(r"\langle \,", r"\langle ").replace(r"\,\rangle", r" \rangle")
    return re.sub(r" +", " ", text).strip()


def _pieces(line: str) -> list[str]:
    line = re.sub(r"^(\s*\S+(?:\s\S+){0,3}?)\s{2,}(=|<-)(?=\s)", r"\1 \2", line)
    line = re.sub(r"(?<=\S)\s{2,}(=|<-|~)\s", r" \1 ", line)
    return [piece for piece in re.split(r"\s{2,}", line.strip()) if piece]


def _set(piece: str) -> str:
    """A piece as MyST."""
    tail = ""
    if piece[-1] in ",;" and len(piece) > 1:
        piece, tail = piece[:-1], piece[-1]
    label = re.match(r"((?:[A-Z][a-z]+|step \d|later|simplified|global|layer|private|[a-z_]{4,}):) (?=\S)", piece)
    if label:
        return f"{words(label[1])} {_set(piece[label.end() :] + tail)}"
    if _is_prose(piece):
        return words(piece) + tail
    try:
        return f"{_in_text(latex(piece))}{tail}"
    except (ValueError, IndexError):
        return f"`{piece}`{tail}" if "`" not in piece else piece + tail


def _in_text(formula: str) -> str:
    """A formula, and the words in it outside of its dollars, where they wrap; a formula whose brackets hold words stays whole."""
    parts = re.split(r"\\text\{ ([^{}]*) \}", formula)
    if any(_depth(part) for part in parts[::2]):
        return f"${formula}$"
    out = []
    for index, part in enumerate(parts):
        if index % 2:
            out.append(words(part))
            continue
        bare = re.fullmatch(r"(?P<before>[,;]?)(?:\\[,;]|\s)*(?P<math>.*?)(?:\\[,;]|\s)*(?P<after>[,;]?)(?:\\[,;]|\s)*", part, re.S)
        if bare is None or not bare["math"]:
            out += [part.strip("\\,; ") and f"${part}$" or (bare["before"] if bare else "")]
            continue
        out += [bare["before"], f"${bare['math']}$" + bare["after"]]
    return re.sub(r" ([,;])", r"\1", " ".join(part for part in out if part))


def _depth(part: str) -> int:
    """How many brackets of a part are open at its end, or closed before they were opened."""
    open_, least = 0, 0
    for mark in re.findall(r"\\l(?:vert|Vert|angle)|\\r(?:vert|Vert|angle)|[()\[\]{}]", part):
        open_ += 1 if mark[0] in "([{" or mark.startswith("\\l") else -1
        least = min(least, open_)
    return open_ - least


def words(text: str) -> str:
    """Words of a head as MyST: code in backticks stays code, and nothing else is markup."""
    parts = re.split(r"(`[^`]*`|(?<!\w)[A-Za-z]+(?:_[A-Za-z0-9]+)+(?!\w))", text)
    return "".join(_code_or_index(part) if index % 2 else re.sub(r"([\\*_\[\]<>|$~^])", r"\\\1", part) for index, part in enumerate(parts))


def _code_or_index(part: str) -> str:
    if part.startswith("`"):
        return part
    head, _, tail = part.partition("_")
    return f"${_name(part)}$" if len(tail) == 1 and (len(head) == 1 or head.lower() in GREEK) else f"`{part}`"


def typeset(block: str) -> str:
    """A block of formulas as MyST: a container with a paragraph for each line, whose pieces wrap."""
    lines = [line for line in block.splitlines() if line.strip()]
    set_lines = [" &emsp; ".join(_set(piece) for piece in _pieces(line)) for line in lines]
    return "::::{container} recurrence\n" + "\n\n".join(set_lines) + "\n::::\n"
