"""Read PTX: one entry as basic blocks of instructions, each with its weight in machine instructions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

# Approximate number of machine instructions (SASS) of a PTX instruction, from the output of ptxas for compute
# capability 9.0. The first matching pattern counts; an instruction that matches none has weight 1. The arithmetic units
# are 32 bits wide, so that 64-bit integers cost at least twice as much: most rows are about that, and about divisions.
WEIGHTS: tuple[tuple[str, float, str], ...] = (
    (r"(mov|cvta)\.", 0.3, "mostly folded into the instruction that reads it"),
    (r"ld\.param\.", 0.3, "an operand in the constant bank, loaded only where it stays in a register"),
    (r"(add|sub|neg)\..*64$", 2, "low half with carry, high half"),
    (r"mul\.lo\..*64$", 3, "a wide product and two that are added to its high half"),
    (r"mul\.hi\..*64$", 9, "four wide products and their carries"),
    (r"mad\.lo\..*64$", 4, "as mul.lo, and an addition"),
    (r"(and|or|xor|not|shl|shr)\..*64$", 1.6, "two halves, of which one is often constant or unused"),
    (r"(setp|selp|bfi|bfe)\..*64$", 2, "two halves"),
    (r"(min|max)\..*64$", 4, "a comparison and a selection of two halves each"),
    (r"(div|rem)\..*64$", 90, "a call: reciprocal in float32, then products of 64 bits"),
    (r"(div|rem)\.[us]32$", 18, "reciprocal in float32, a product, two corrections"),
    (r"div\.rn\.f32$", 10, "reciprocal, four fused multiply-adds, a test for the slow path"),
    (r"rcp\.rn\.f32$", 7, "approximation, two corrections, a test for the slow path"),
    (r"sqrt\.rn\.f32$", 9, "approximation, four corrections, a test for the slow path"),
    (r"redux\.sync", 2, "into a uniform register, and a copy of that"),
    (r"cvt\.[us](64\.[us]32|32\.[us]64)$", 0.6, "one half is a copy, or nothing"),
)
ENDS_BLOCK = ("bra", "ret", "exit", "bar", "barrier")


class NotUnderstood(ValueError):
    """PTX that this translator does not support; nothing is guessed."""


@dataclass(frozen=True)
class Instruction:
    """One instruction. predicate: "", "%p3" or "!%p3". line: of the Python source, 0 if unknown."""

    opcode: str
    operands: tuple[str, ...]
    predicate: str
    line: int

    def __str__(self) -> str:
        guard = f"@{self.predicate} " if self.predicate else ""
        return f"{guard}{self.opcode} {', '.join(self.operands)}".strip() + ";"

    @property
    def base(self) -> str:
        return self.opcode.split(".")[0]

    @property
    def weight(self) -> float:
        return _weight(self.opcode)

    @property
    def is_wide_integer(self) -> bool:
        """Whether it computes with 64-bit integers, which are mostly addresses."""
        computes = self.base not in ("ld", "st", "atom", "red", "mov", "cvta")
        return computes and re.search(r"\.[usb]64", self.opcode) is not None


@cache
def _weight(opcode: str) -> float:
    return next((weight for pattern, weight, _ in WEIGHTS if re.match(pattern, opcode)), 1.0)


@dataclass(frozen=True)
class Label:
    name: str


@dataclass(frozen=True)
class Scope:
    """A brace of inline assembly, or a register declared between two braces, as written."""

    text: str


@dataclass(frozen=True)
class Visit:
    """The beginning of basic block `block`."""

    block: int


@dataclass
class Entry:
    """A kernel as in its PTX. `body` is in order; `blocks` lists the same instructions by basic block."""

    name: str
    parameters: list[tuple[str, str]]  # type and name
    registers: list[tuple[str, str, int]]  # type, name without number, how many
    shared: dict[str, int]  # offset of each array in a block's shared memory
    shared_bytes: int
    source: str  # the Python file that lines refer to; "" without line information
    body: list[Instruction | Label | Scope | Visit] = field(default_factory=list)
    blocks: list[list[Instruction]] = field(default_factory=list)


def parse(ptx: str) -> Entry:
    """The one entry of a PTX file. Raises NotUnderstood if there is none, or if a line is not an instruction."""
    found = re.search(r"\.visible \.entry (\S+?)\((.*?)\)\s*(?:\.\w+ [^\n]*\n)*\{\n(.*?)\n\}", ptx, re.DOTALL)
    if found is None:
        raise NotUnderstood("no .visible .entry with a body")
    name, parameters, body = found.groups()
    for kind in (".func", ".local ", ".const "):
        if re.search(rf"^\s*(\.visible |\.weak )?{re.escape(kind)}", ptx, re.MULTILINE):
            raise NotUnderstood(f"{name}: {kind.strip()} (function calls, a stack or constant memory)")
    shared, size = {}, 0
    for align, array, length in re.findall(r"\.shared \.align (\d+) \.b8 (\S+?)\[(\d+)\];", ptx):
        size = -(-size // int(align)) * int(align)
        shared[array] = size
        size += int(length)
    source = re.search(r'\.file\s+1 "([^"]+)"', ptx)
    entry = Entry(
        name,
        re.findall(r"\.param \.(\w+) (\w+)", parameters),
        [(t, r, int(n)) for t, r, n in re.findall(r"\.reg \.(\w+)\s+(%\w+)<(\d+)>;", body)],
        shared,
        size,
        source[1] if source else "",
    )
    _read_body(entry, body)
    return entry


def _read_body(entry: Entry, body: str) -> None:
    """A block begins at a label and after an instruction that may jump, end or wait."""
    line, fresh = 0, True
    for raw in body.splitlines():
        text = raw.split("//")[0].strip()
        place = re.match(r"\.loc\s+1 (\d+)", text)
        if place:
            line = int(place[1])
        if not text or re.match(r"\.loc\s|\.pragma\s|\.reg \.\w+\s+%\w+<\d+>;$|\$L__(tmp|func)\w*:$", text):
            continue
        label = re.match(r"(\$?\w+):$", text)
        if label:
            entry.body.append(Label(label[1]))
            fresh = True
        elif text in ("{", "}") or re.match(r"\.reg \.\w+\s+%\w+;$", text):
            entry.body.append(Scope(text))
        else:
            instruction = _instruction(text, line)
            if fresh:
                entry.body.append(Visit(len(entry.blocks)))
                entry.blocks.append([])
            entry.body.append(instruction)
            entry.blocks[-1].append(instruction)
            fresh = instruction.base in ENDS_BLOCK


def _instruction(text: str, line: int) -> Instruction:
    found = re.match(r"(?:@(!?%\w+)\s+)?([a-z][\w.:]*)\s*(.*);$", text)
    if found is None:
        raise NotUnderstood(f"not an instruction: {text}")
    return Instruction(found[2], tuple(_operands(found[3])), found[1] or "", line)


def _operands(text: str) -> Iterator[str]:
    """Split at commas outside of brackets and braces."""
    for part in re.findall(r"(?:[^,\[{]|\[[^\]]*\]|\{[^}]*\})+", text):
        yield part.strip()
