"""Dataclasses whose methods are made late are as the standard library's, which is the second opinion."""

import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError, field, replace
from functools import partial

import pytest

from loader import records

VALUES = [(1,), (1, "x"), (2,), (1, "x", [3])]


def made(decorator):
    """Some dataclasses of the same names and fields."""

    @decorator(frozen=True, slots=True)
    class Frozen:
        a: int
        b: str = "y"
        c: list = field(default_factory=list)
        d: int = field(default=0, compare=False, repr=False)

        @property
        def twice(self):
            return 2 * self.a

    @decorator(slots=True)
    class Free:
        a: int
        b: str = "y"
        c: list = field(default_factory=list)
        d: int = field(default=0, compare=False, repr=False)

    @decorator(frozen=True, slots=True)
    class One:
        a: int

    @decorator(frozen=True, slots=True, eq=False)
    class Itself:
        a: int

    @decorator(frozen=True, slots=True, order=True)
    class Ordered:
        a: int
        b: str = "y"

    @decorator
    class Plain:
        a: int
        b: str = "y"
        c: list = field(default_factory=list)
        d: int = field(default=0, compare=False, repr=False)

    @decorator(frozen=True)
    class FrozenPlain:
        """It keeps its own hash."""

        a: int
        b: str = "y"
        c: list = field(default_factory=list)
        d: int = field(default=0, compare=False, repr=False)

        def __hash__(self):
            return self.a

    @decorator(slots=True, kw_only=True)
    class Named:
        a: int = 1
        b: str

    @decorator(slots=True)
    class Partly:
        b: str = field(default="y", kw_only=True)
        a: int

    return Frozen, Free, One, Itself, Ordered, Plain, FrozenPlain, Named, Partly


OURS, THEIRS = made(records.dataclass), made(dataclasses.dataclass)
BOTH = [pytest.param(*pair, id=pair[0].__name__) for pair in zip(OURS, THEIRS, strict=True)]


def outcome(action):
    """What it gives, or the kind of its error."""
    try:
        return action()
    except Exception as error:  # noqa: BLE001  # of any kind
        return type(error)


@pytest.mark.parametrize(("ours", "theirs"), BOTH)
def test_instances(ours, theirs):
    """They take the same arguments, print, compare, hash, copy and change as the others do, or refuse it."""

    def seen(kind, values):
        one, same, other = (outcome(partial(kind, *each)) for each in (values, values, (7,)))
        if isinstance(one, type):
            return one
        return [
            repr(one),
            one == same,
            one == other,
            one == 5,
            outcome(lambda: one < other),
            isinstance(outcome(lambda: hash(one)), int) and (hash(one) == hash(same)),
            outcome(lambda: setattr(one, "a", 9)),
            outcome(lambda: one.a),
            outcome(lambda: delattr(one, "a")),
            isinstance(
                outcome(lambda: setattr(one, "nothing", 9)), type
            ),  # of either kind: that depends on the version
            repr(replace(same, a=4)),
            repr(copy.deepcopy(same)),
            dataclasses.asdict(same),
            [(each.name, each.type) for each in dataclasses.fields(kind)],
            kind.__match_args__,
            getattr(same, "twice", None),
        ]

    for values in VALUES:
        assert seen(ours, values) == seen(theirs, values)
    for wrong in ({}, {"a": 1, "nothing": 2}):
        assert outcome(lambda wrong=wrong: ours(**wrong)) is outcome(lambda wrong=wrong: theirs(**wrong)) is TypeError
    if len(dataclasses.fields(ours)) > 2:
        assert ours(a=1, c=[2]).c == [2]
        assert ours(1).c is not ours(1).c
        assert ours(1, d=1) == ours(1, d=2)


def test_what_is_in_a_set():
    """Equal ones are one, in sets and in dictionaries, from the first look on."""
    frozen = OURS[2]
    assert len({frozen(1), frozen(1), frozen(2)}) == 2
    assert {frozen(1): "x"}[frozen(1)] == "x"


@records.dataclass(frozen=True, slots=True)
class Pickled:
    """At the top of a module, where pickle finds it."""

    a: int
    b: dict[str, int]


def test_pickled():
    """One that is frozen comes back as it was."""
    back = pickle.loads(pickle.dumps(Pickled(1, {"x": 2})))
    assert back == Pickled(1, {"x": 2})
    with pytest.raises(FrozenInstanceError, match="field 'a' of Pickled"):
        back.a = 2


def test_methods_of_its_own():
    """They stay."""

    @records.dataclass(frozen=True, slots=True)
    class Own:
        a: int

        def __repr__(self):
            return "own"

    assert (repr(Own(1)), Own(1) == Own(1)) == ("own", True)


def test_one_within_itself():
    """It is printed."""

    @records.dataclass(slots=True)
    class Ring:
        a: object = None

    ring = Ring()
    ring.a = ring
    assert repr(ring).endswith("Ring(a=...)")


def test_methods_are_made_once():
    """At the first call, which puts them in their place."""

    @records.dataclass(frozen=True, slots=True)
    class Late:
        a: int

    late = Late.__init__
    Late(1)
    init = Late.__init__
    Late(2)
    assert late is not init is Late.__init__


def test_one_that_derives_from_another():
    """It is made as ever, and its parent's methods are no others for that."""

    @records.dataclass(frozen=True)
    class Parent:
        a: int

    @records.dataclass(frozen=True)
    class Child(Parent):
        b: int = 2

    class Odd(Parent):
        def __init__(self):
            super().__init__(a=7)

    assert (Odd(), Odd().a) == (Odd(), 7)
    assert (repr(Parent(1)), repr(Child(1))) == (f"{Parent.__qualname__}(a=1)", f"{Child.__qualname__}(a=1, b=2)")
    with pytest.raises(TypeError, match="cannot inherit non-frozen"):

        @dataclasses.dataclass
        class Melted(Parent):
            pass


@pytest.mark.parametrize("kind", [dataclasses.InitVar[int], dataclasses.KW_ONLY])
def test_arguments_that_are_no_fields(kind):
    """The standard library makes them."""

    @records.dataclass(slots=True)
    class Odd:
        a: int
        _: kind
        b: int = 5

        def __post_init__(self, *_):
            self.b += 1

    assert isinstance(Odd.__init__, type(test_pickled))
    assert Odd.__init__.__qualname__.endswith("Odd.__init__")
