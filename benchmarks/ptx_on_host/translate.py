"""Translate PTX to C: one function per kernel, which counts visits of basic blocks and calls a function at barriers.

The C follows PTX line by line: registers are variables of the same width, types have PTX's names (`arithmetic.h`).
Arithmetic is a row of `rules`; memory, barriers and jumps are translated here. Anything else raises NotUnderstood with
the instruction, so that nothing is guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from benchmarks.ptx_on_host.ptx import Entry, Instruction, Label, NotUnderstood, Scope, Visit
from benchmarks.ptx_on_host.rules import ANY, ATOMS, RULES

VOTES = {"popc": "VOTES", "or": "VOTES != 0", "and": "VOTES == ALL"}
ORDERING = r"(?:\.volatile|\.(?:weak|relaxed|acquire|release|acq_rel)(?:\.(?:cta|gpu|sys))?)?"


@dataclass(frozen=True)
class Translation:
    """A kernel in C, and the opcodes whose results C cannot reproduce bitwise."""

    entry: Entry
    code: str
    approximate: frozenset[str]  # opcodes


def translate(entry: Entry) -> Translation:
    """Raises NotUnderstood naming the instruction and the kernel."""
    writer = _Writer(entry)
    lines: list[str] = []
    for item in entry.body:
        match item:
            case Visit(block):
                lines.append(f"VISIT({block});")
            case Label(name):
                lines.append(f"{name.replace('$', '')}:;")
            case Scope(text):
                lines.append(re.sub(r"\.reg \.(\w+)\s+(%\w+);", lambda reg: f"{reg[1]} {_variable(reg[2])} = 0;", text))
            case Instruction(predicate=""):
                lines.append(writer.write(item))
            case Instruction(predicate=guard):
                lines.append(f"if ({_variable(guard)}) {{ {writer.write(item)} }}")
    registers = [f"{t} {_variable(f'{name}{i}')} = 0;" for t, name, n in entry.registers for i in range(n)]
    sizes = {"BLOCKS": len(entry.blocks), "BARRIERS": writer.waits, "SHARED_BYTES": entry.shared_bytes}
    constants = ", ".join(f"{name} = {value}" for name, value in sizes.items())
    code = [f"enum {{ {constants} }};", "static void kernel(Thread *thread) {", *registers, *lines, "}", ""]
    approximate = {i.opcode for block in entry.blocks for i in block if ".approx" in i.opcode}
    return Translation(entry, "\n".join(code), frozenset(approximate))


class _Writer:
    """Instructions as C statements."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.register_type = {name: type_ for type_, name, _ in entry.registers}
        self.parameter = {name: i for i, (_, name) in enumerate(entry.parameters)}
        self.waits = 0

    def write(self, item: Instruction) -> str:
        statement = self._control(item) or self._memory(item) or self._rule(item)
        if statement is None:
            raise NotUnderstood(f"{item} in {self.entry.name}")
        return statement

    def _control(self, item: Instruction) -> str | None:
        match item.opcode, item.operands:
            case (("bra" | "bra.uni"), (label,)):
                return f"goto {label.replace('$', '')};"
            case (("ret" | "exit"), ()):
                return "return;"
            case (("membar.cta" | "membar.gl" | "membar.sys" | "fence.acq_rel.gpu" | "fence.sc.gpu"), ()):
                return ";"  # one thread runs at a time: memory is always in order
            case (("bar.sync" | "barrier.sync" | "barrier.cta.sync"), ("0",)):
                self.waits += 1
                return f"wait_for_all(thread, {self.waits}, 0);"
        return self._warp(item) or self._block_vote(item)

    def _warp(self, item: Instruction) -> str | None:
        """Shuffles, votes and barriers of a warp: wait for its lanes, then use their values."""
        found = re.fullmatch(
            r"bar\.warp\.(sync)|shfl\.sync\.(up|down|bfly|idx)\.b32|vote\.sync\.(ballot\.b32|any\.pred|all\.pred)"
            r"|match\.any\.sync\.(b32)|redux\.sync\.((?:min|max)\.[su]32)",
            item.opcode,
        )
        if found is None:
            return None
        self.waits += 1
        barrier, shuffle, vote, match_, reduction = found.groups()
        *_, members = item.operands
        wait = f"wait_for_warp(thread, {self.waits}, {self._read(members, 'u32', item)}, "
        if barrier:
            return f"{wait}0);"
        target, given, *more = item.operands[:-1]
        if vote:
            result = {"ballot.b32": "ballot()", "any.pred": "ballot() != 0", "all.pred": "ballot() == givers"}[vote]
            type_ = "b32" if vote == "ballot.b32" else "pred"
            return f"{wait}{self._read(given, 'pred', item)}); {self._assign(target, type_, result, item)}"
        value = self._read(given, "b32", item)
        if reduction:
            operation, type_ = reduction.split(".")
            result = f"reduced_{type_}({int(operation == 'max')})"
            return f"{wait}{value}); {self._assign(target, type_, result, item)}"
        if match_:
            return f"{wait}{value}); {self._assign(target, 'b32', f'matches({value})', item)}"
        register, _, flag = target.partition("|")
        lane, limits = (self._read(operand, "u32", item) for operand in more)
        result = f"shuffled(thread, '{shuffle[0]}', {lane}, {limits}, &in_range)"
        flagged = self._assign(flag, "pred", "in_range", item) if flag else ""
        return f"{{ pred in_range; {wait}{value}); {self._assign(register, 'b32', result, item)} {flagged} }}"

    def _block_vote(self, item: Instruction) -> str | None:
        vote = re.fullmatch(r"bar(?:rier\.cta)?\.red\.(popc|or|and)\.(u32|pred)", item.opcode)
        if vote is None or len(item.operands) != 3 or item.operands[1] != "0":
            return None
        self.waits += 1
        flag = self._read(item.operands[2], "pred", item)
        waits = f"wait_for_all(thread, {self.waits}, {flag});"
        return f"{waits} {self._assign(item.operands[0], vote[2], VOTES[vote[1]], item)}"

    def _memory(self, item: Instruction) -> str | None:
        access = re.fullmatch(rf"(ld|st){ORDERING}\.(global|shared)(?:\.nc)?(?:\.v([24]))?\.{ANY}", item.opcode)
        if access is None:
            return self._parameter(item) or self._atomic(item)
        kind, space, count, type_ = access.groups()
        vector, address = item.operands if kind == "ld" else item.operands[::-1]
        names = [part.strip() for part in vector.strip("{}").split(",")]
        if len(names) != int(count or 1):
            return None
        pointer = self._pointer(address, space, f"{type_}[{len(names)}]", item)
        if kind == "ld":
            return " ".join(self._assign(name, type_, f"(*{pointer})[{i}]", item) for i, name in enumerate(names))
        return " ".join(f"(*{pointer})[{i}] = {self._read(name, type_, item)};" for i, name in enumerate(names))

    def _parameter(self, item: Instruction) -> str | None:
        load = re.fullmatch(rf"ld\.param\.{ANY}", item.opcode)
        if load is None:
            return None
        name, offset = self._address(item.operands[1])
        place = f"(char *)parameters[{self.parameter[name]}] + {offset}"
        return self._assign(item.operands[0], load[1], f"*({load[1]} *)({place})", item)

    def _atomic(self, item: Instruction) -> str | None:
        atom = re.fullmatch(rf"(atom|red){ORDERING}\.(global|shared)\.(\w+)\.{ANY}", item.opcode)
        if atom is None or atom[3] not in ATOMS:
            return None
        kind, space, operation, type_ = atom.groups()
        target, address, *values = ("_", *item.operands) if kind == "red" else item.operands
        words = dict(zip("ab", (self._read(value, type_, item) for value in values), strict=False))
        result = self._assign(target, type_, "old", item) if target != "_" else ""
        pointer = self._pointer(address, space, type_, item)
        return f"{{ {type_} *at = {pointer}, old = *at; *at = {_filled(ATOMS[operation], words)}; {result} }}"

    def _rule(self, item: Instruction) -> str | None:
        flush = ".ftz" in item.opcode
        opcode = item.opcode.replace(".ftz", "")
        for pattern, reads, writes, expression in RULES:
            found = re.fullmatch(pattern, opcode)
            if found is None:
                continue
            T, U = (*found.groups(), "", "")[:2]
            types = [T if t == "T" else U if t == "U" else t for t in reads.split()]
            if len(item.operands) != 1 + len(types):
                return None
            values = [self._read(v, t, item) for v, t in zip(item.operands[1:], types, strict=True)]
            if flush:
                values = [f"flushed({v})" if t == "f32" else v for v, t in zip(values, types, strict=True)]
            value = _filled(expression.replace("_T(", f"_{T}("), {"T": T, **dict(zip("abcd", values, strict=False))})
            type_ = T if writes == "T" else writes
            value = f"flushed({value})" if flush and type_ == "f32" else value
            return self._assign(item.operands[0], type_, value, item)
        return None

    def _type_of(self, register: str) -> str:
        type_ = self.register_type.get(register.rstrip("0123456789"))
        if type_ is None:
            raise NotUnderstood(f"register {register} in {self.entry.name}")
        return type_

    def _read(self, operand: str, type_: str, item: Instruction) -> str:  # noqa: PLR0911 - a row of cases
        """An operand as a C value of the type that the instruction expects."""
        special = re.fullmatch(r"%(tid|ntid|ctaid|nctaid)\.([xyz])", operand)
        if operand == "%laneid":
            return "thread->lane"
        if special and special[1] == "tid":
            return f"thread->{special[2]}"
        if special:
            return f"{special[1]}[{'xyz'.index(special[2])}]"
        if operand.startswith("%"):
            return f"({type_}){self._bits(operand, type_)}"
        if re.fullmatch(r"0[fF][0-9a-fA-F]{8}", operand):
            return f"f32_of(0x{operand[2:]}u)"
        if re.fullmatch(r"-?\d+|0x[0-9a-fA-F]+", operand):
            return f"({type_}){'(-9223372036854775807LL - 1)' if operand == str(-(2**63)) else operand + 'LL'}"
        if operand in self.entry.shared:
            return f"({type_}){self.entry.shared[operand]}"
        raise NotUnderstood(f"operand {operand} of {item} in {self.entry.name}")

    def _bits(self, register: str, type_: str) -> str:
        """A register's value; if only one of register and type is a float, its bits reinterpreted as the type."""
        name, held = _variable(register), self._type_of(register)
        if _is_float(held) == _is_float(type_):
            return name
        return f"{type_ if _is_float(type_) else held.replace('f', 'b')}_of({name})"

    def _assign(self, register: str, type_: str, value: str, item: Instruction) -> str:
        if not re.fullmatch(r"%[a-z]+\d+", register):
            raise NotUnderstood(f"target {register} of {item} in {self.entry.name}")
        held = self._type_of(register)
        if _is_float(held) == _is_float(type_):
            return f"{_variable(register)} = ({type_})({value});"
        return f"{_variable(register)} = {held}_of({value});"

    def _address(self, operand: str) -> tuple[str, str]:
        found = re.fullmatch(r"\[([%\w$]+)(?:\+(-?\d+))?\]", operand)
        if found is None:
            raise NotUnderstood(f"address {operand} in {self.entry.name}")
        return found[1], found[2] or "0"

    def _pointer(self, operand: str, space: str, type_: str, item: Instruction) -> str:
        """A pointer to one value of the type, or to several: `f32[4]`."""
        base, offset = self._address(operand)
        address = f"{self._read(base, 'u64', item)} + (u64)({offset}LL)"
        pointer = type_.replace("[", " (*)[") if "[" in type_ else f"{type_} *"
        return f"(({pointer})at_{space}({address}, sizeof({type_})))"


def _is_float(type_: str) -> bool:
    return type_ in ("f32", "f64")  # an f16 is kept as bits until it is converted


def _filled(expression: str, words: dict[str, str]) -> str:
    """The expression, with whole words replaced."""
    return re.sub(r"\b\w+\b", lambda word: words.get(word[0], word[0]), expression)


def _variable(register: str) -> str:
    """The C name of a register, or of a predicate with or without its "!"; %f32 must not get the name of a type."""
    return re.sub(r"%([a-z]+)(\d+)", r"\1_\2", register)
