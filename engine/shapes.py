"""The input shapes a plan accepts. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from core.spec import SIDE_MULTIPLE

Shape = tuple[int, int, int]  # N, H, W


@dataclass(frozen=True)
class ShapeRange:
    """The input shapes (N, H, W) a plan accepts, and the one it is fastest at. In a static plan all three are equal."""

    smallest: Shape
    best: Shape
    largest: Shape

    def __post_init__(self) -> None:
        for shape in (self.smallest, self.best, self.largest):
            n, h, w = shape
            if n < 1 or min(h, w) < SIDE_MULTIPLE or h % SIDE_MULTIPLE or w % SIDE_MULTIPLE:
                raise ValueError(f"shape is {n}x{h}x{w}; expected NxHxW, N >= 1, sides multiples of {SIDE_MULTIPLE}")
        ordered = zip(self.smallest, self.best, self.largest, strict=True)
        if not all(low <= middle <= high for low, middle, high in ordered):
            raise ValueError(f"shapes are {self}; expected smallest <= best <= largest in each of N, H, W")

    @classmethod
    def static(cls, shape: Shape) -> ShapeRange:
        return cls(shape, shape, shape)

    @classmethod
    def parse(cls, text: str) -> ShapeRange:
        """The range from the text that `str` gives: NxHxW, or three such shapes joined by colons. Raises ValueError."""
        shapes = [parse_shape(part) for part in text.split(":")]
        if len(shapes) not in (1, 3):
            raise ValueError(f"{text!r}; expected MIN:BEST:MAX, such as 1x256x256:1x512x704:4x1024x1024")
        return cls(shapes[0], shapes[len(shapes) // 2], shapes[-1])

    @property
    def is_static(self) -> bool:
        return self.smallest == self.largest

    def contains(self, shape: Shape) -> bool:
        return all(low <= s <= high for low, s, high in zip(self.smallest, shape, self.largest, strict=True))

    def __str__(self) -> str:
        shapes = (self.best,) if self.is_static else (self.smallest, self.best, self.largest)
        return ":".join("x".join(map(str, shape)) for shape in shapes)


def parse_shape(text: str) -> Shape:
    """(N, H, W) of "NxHxW". Raises ValueError."""
    numbers = text.split("x")
    if len(numbers) != 3 or not all(number.isdecimal() for number in numbers):
        raise ValueError(f"{text!r}; expected NxHxW, such as 1x512x704")
    n, h, w = map(int, numbers)
    return n, h, w
