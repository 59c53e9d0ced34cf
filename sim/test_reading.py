"""Files of strangers: JSON and arrays that cost no more than they are long, and what is sealed."""

import io
import json
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from bittrue.sim import reading
from bittrue.sim.errors import BittrueError


def npy(array: np.ndarray) -> bytes:
    member = io.BytesIO()
    np.lib.format.write_array(member, array)
    return member.getvalue()


class TestJson:
    @pytest.mark.parametrize("text", ['{"a": [1, 2.5, null, true, "x"], "b": {}}', "[]", "5", '"text"', "NaN"])
    def test_as_json_has_it(self, text):
        assert repr(reading.plain_json(text)) == repr(json.loads(text))

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('{"a": 1, "a": 1}', "the key 'a' is there twice"),
            ('{"b": {"a": 1, "c": 2, "a": 3}}', "the key 'a' is there twice"),
            ("[" * 100_000, "nested more than 32 deep"),
            ("[" * 33 + "]" * 33, "nested more than 32 deep"),
            ('{"a": ' * 33 + "5" + "}" * 33, "nested more than 32 deep"),
            ('[{"a": 5, "b": ' * 17 + "5" + "}]" * 17, "nested more than 32 deep"),
            ("1" * 41, "a number of 41 digits"),
            ("{", "not JSON"),
            (b"\xff", "not JSON"),
        ],
    )
    def test_refused(self, text, reason):
        with pytest.raises(BittrueError, match=reason):
            reading.plain_json(text)

    def test_just_allowed(self):
        deep = "[" * 32 + "5" + "]" * 32
        assert reading.plain_json(deep) == json.loads(deep)
        for deep in ('{"a": ' * 32 + "5" + "}" * 32, '[{"a": 5, "b": ' * 16 + "5" + "}]" * 16):
            assert reading.plain_json(deep) == json.loads(deep)
        assert reading.plain_json("1" * 40) == int("1" * 40)


class TestSeal:
    def test_back(self):
        value = {"a": [1, 2.5, None], "b": {"c": "text"}, "1": True}
        assert reading.unsealed(reading.sealed(value)) == value
        assert reading.unsealed(reading.sealed({1: True, "b": (1, 2)})) == {"1": True, "b": [1, 2]}
        again = json.loads(reading.sealed(value)) | {"a": 5}  # sealed anew, not with the old one
        assert reading.unsealed(reading.sealed(again))["a"] == 5

    def test_every_change_is_noticed(self):
        content = reading.sealed({"a": [1, 25, None], "b": "text"})
        for at in range(len(content)):
            for bit in range(8):
                changed = bytearray(content)
                changed[at] ^= 1 << bit
                try:
                    value = reading.unsealed(bytes(changed))
                except BittrueError:
                    continue
                assert value == {"a": [1, 25, None], "b": "text"}  # a blank for a blank

    @pytest.mark.parametrize("text", ["{}", "[]", "5", '{"seal": 5}', '{"seal": null, "a": 1}'])
    def test_without_a_seal(self, text):
        with pytest.raises(BittrueError, match="does not match its seal"):
            reading.unsealed(text)


class TestArrays:
    @pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4), (2, 0, 3)])
    @pytest.mark.parametrize("dtype", ["i1", "u2", ">i4", "f8", "?", "f2"])
    def test_as_numpy_has_it(self, shape, dtype):
        array = (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 7).astype(dtype)
        found = reading.array(npy(array))
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
        assert found.flags.writeable
        if array.ndim > 1:
            np.testing.assert_array_equal(reading.array(npy(np.asfortranarray(array))), array)

    def test_what_a_header_claims_costs_nothing(self):
        text = "{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000,), }".ljust(117) + "\n"
        tracemalloc.start()
        with pytest.raises(BittrueError, match="says 8000000000 bytes of shape .* but 0 are there"):
            reading.array(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()

    def test_a_zip_that_says_too_much(self, monkeypatch):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", npy(np.zeros(1000)))
        assert list(reading.arrays(buffer.getvalue())) == ["x"]
        size = 8000 + 128
        monkeypatch.setattr(reading, "MAX_BYTES", size)
        reading.arrays(buffer.getvalue())
        monkeypatch.setattr(reading, "MAX_BYTES", size - 1)
        with pytest.raises(BittrueError, match=f"it says that it holds {size} bytes, and at most {size - 1} are read"):
            reading.arrays(buffer.getvalue())


def test_damage_of_a_zip_is_told_in_the_words_of_its_reader():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", npy(np.arange(3)))
    content = bytearray(buffer.getvalue())
    content[content.index(b"NUMPY")] ^= 1
    for damaged in (b"", bytes(content[:-1]), bytes(content)):
        with pytest.raises(Exception) as truth, zipfile.ZipFile(io.BytesIO(damaged)) as archive:  # noqa: PT011
            archive.read("x.npy")
        assert str(truth.value)
        with pytest.raises(BittrueError) as told:
            reading.arrays(damaged)
        assert str(told.value) == f"its zip is damaged ({truth.value})"


def test_two_members_of_one_name_are_told_as_that_and_no_damage():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of it, too
        for _ in range(2):
            archive.writestr("a.npy", npy(np.arange(3)))
    with pytest.raises(BittrueError, match=r"^its member 'a' is there twice$"):
        reading.arrays(buffer.getvalue())
