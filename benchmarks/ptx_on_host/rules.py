"""PTX instructions in C: one row for each instruction that only reads registers and writes one.

A row holds the opcode, without `.ftz`; the types of a, b, c, d; the type of the result; the result in C. T and U are
the types that the opcode names. Float sums and products are C's own: the compiler may not fuse them (machine.py).
"""

from __future__ import annotations

ANY = r"([usbf](?:8|16|32|64))"
INTEGER = r"([us](?:16|32|64))"
WORD = r"([usb](?:16|32|64))"
# For unsigned integers PTX says lower and higher: lo, ls, hi, hs.
ORDERS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">"}
ORDERS["hs"] = ">="


RULES: list[tuple[str, str, str, str]] = [
    (r"mov\.([usbf]\d\d|pred)", "T", "T", "a"),
    (r"cvta\.to\.global\.u64", "u64", "u64", "a"),
    (r"cvta\.shared\.u64", "u64", "u64", "a + (u64)shared"),
    (r"cvta\.to\.shared\.u64", "u64", "u64", "a - (u64)shared"),
    (rf"add\.{INTEGER}", "T T", "T", "(u64)a + (u64)b"),
    (rf"sub\.{INTEGER}", "T T", "T", "(u64)a - (u64)b"),
    (rf"mul\.lo\.{INTEGER}", "T T", "T", "(u64)a * (u64)b"),
    (rf"mad\.lo\.{INTEGER}", "T T T", "T", "(u64)a * (u64)b + (u64)c"),
    (r"mul\.hi\.([us]32)", "T T", "T", "((s64)a * (s64)b) >> 32"),
    (r"mul\.hi\.([us]64)", "T T", "T", "((__int128)a * (__int128)b) >> 64"),
    (r"mul\.wide\.([us]16)", "T T", "u32", "(u32)a * (u32)b"),
    (r"mul\.wide\.([us]32)", "T T", "u64", "(u64)a * (u64)b"),
    (r"mad\.wide\.([us]32)", "T T u64", "u64", "(u64)a * (u64)b + c"),
    (r"div\.([us](?:32|64))", "T T", "T", "div_T(a, b)"),
    (r"rem\.([us](?:32|64))", "T T", "T", "rem_T(a, b)"),
    (r"and\.(b\d\d|pred)", "T T", "T", "a & b"),
    (r"or\.(b\d\d|pred)", "T T", "T", "a | b"),
    (r"xor\.(b\d\d|pred)", "T T", "T", "a ^ b"),
    (r"not\.(b\d\d)", "T", "T", "~a"),
    (r"not\.pred", "pred", "pred", "!a"),
    (r"neg\.(s\d\d)", "T", "T", "0 - (u64)a"),
    (r"abs\.(s\d\d)", "T", "T", "a < 0 ? 0 - (u64)a : (u64)a"),
    (r"min\.([us]\d\d)", "T T", "T", "a < b ? a : b"),
    (r"max\.([us]\d\d)", "T T", "T", "a > b ? a : b"),
    (r"popc\.(b32)", "T", "u32", "__builtin_popcount(a)"),
    (r"clz\.(b32)", "T", "u32", "a ? __builtin_clz(a) : 32"),
    (r"bfind\.(u32)", "T", "u32", "a ? 31 - __builtin_clz(a) : -1"),
    (r"bfind\.shiftamt\.(u32)", "T", "u32", "a ? __builtin_clz(a) : -1"),
    (r"brev\.(b32)", "T", "b32", "bits_reversed(a)"),
    (r"bfi\.(b32|b64)", "T T u32 u32", "T", "bits_inserted(a, b, c, d)"),
    (r"bfe\.(u32|u64)", "T u32 u32", "T", "bits_extracted(a, b, c)"),
    (rf"shl\.{WORD}", "T u32", "T", "SHL(T, a, b)"),
    (rf"shr\.{WORD}", "T u32", "T", "SHR(T, a, b)"),
    (r"selp\.([usbf]\d\d)", "T T pred", "T", "c ? a : b"),
    *((rf"setp\.{name}\.{WORD}", "T T", "pred", f"a {sign} b") for name, sign in ORDERS.items()),
    *(
        (rf"setp\.{name}\.f32", "f32 f32", "pred", f"!isunordered(a, b) && a {sign} b")
        for name, sign in list(ORDERS.items())[:6]
    ),
    *(
        (rf"setp\.{name}u\.f32", "f32 f32", "pred", f"isunordered(a, b) || a {sign} b")
        for name, sign in list(ORDERS.items())[:6]
    ),
    (r"setp\.nan\.f32", "f32 f32", "pred", "isunordered(a, b)"),
    (r"setp\.num\.f32", "f32 f32", "pred", "!isunordered(a, b)"),
    (r"add(?:\.rn)?\.f32", "f32 f32", "f32", "a + b"),
    (r"sub(?:\.rn)?\.f32", "f32 f32", "f32", "a - b"),
    (r"mul(?:\.rn)?\.f32", "f32 f32", "f32", "a * b"),
    (r"fma\.rn\.f32", "f32 f32 f32", "f32", "fmaf(a, b, c)"),
    (r"fma\.rm\.f32", "f32 f32 f32", "f32", "fma_rounded(a, b, c, FE_DOWNWARD)"),
    (r"div\.rn\.f32", "f32 f32", "f32", "a / b"),
    (r"rcp\.rn\.f32", "f32", "f32", "1.0f / a"),
    (r"sqrt\.rn\.f32", "f32", "f32", "sqrtf(a)"),
    (r"neg\.f32", "f32", "f32", "-a"),
    (r"abs\.f32", "f32", "f32", "fabsf(a)"),
    (r"min\.f32", "f32 f32", "f32", "min_f32(a, b)"),
    (r"max\.f32", "f32 f32", "f32", "max_f32(a, b)"),
    (r"ex2\.approx\.f32", "f32", "f32", "exp2f(a)"),  # the device's own is within 2 units in the last place
    (r"cvt\.([usb]\d+)\.([usb]\d+)", "U", "T", "a"),
    (r"cvt\.rn\.f32\.([us]\d+)", "T", "f32", "(f32)a"),
    (r"cvt\.rzi\.([us](?:32|64))\.f32", "f32", "T", "to_T(truncf(a))"),
    (r"cvt\.rni\.([us](?:32|64))\.f32", "f32", "T", "to_T(rintf(a))"),
    (r"cvt\.rmi\.([us](?:32|64))\.f32", "f32", "T", "to_T(floorf(a))"),
    (r"cvt\.rni\.f32\.f32", "f32", "f32", "rintf(a)"),
    (r"cvt\.rmi\.f32\.f32", "f32", "f32", "floorf(a)"),
    (r"cvt\.rzi\.f32\.f32", "f32", "f32", "truncf(a)"),
    (r"cvt\.sat\.f32\.f32", "f32", "f32", "saturated(a)"),
    (r"cvt\.f32\.f16", "f16", "f32", "half_to_f32(a)"),
    (r"cvt\.rn\.f16\.f32", "f32", "f16", "f32_to_half(a)"),
]
# Atomics: the new value in memory, from the old value and the operands.
ATOMS = {"add": "old + a", "min": "old < a ? old : a", "max": "old > a ? old : a", "exch": "a"}
ATOMS |= {"and": "old & a", "or": "old | a", "xor": "old ^ a", "cas": "old == a ? b : old"}
