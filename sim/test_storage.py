"""Program files: read back equal, and refused with a sentence when they are anything but whole."""

import contextlib
import hashlib
import io
import json
import os
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from bittrue.sim import files, storage
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType, same
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize


def small(**meta) -> Program:
    rng = np.random.default_rng(0)
    build = Builder({"x": TensorType((2, 3), INT8)})
    y = build.add("linear", Linear(build.types["x"], rng.integers(-128, 128, (4, 3)), Requantize(4, [7])), "x")
    y = build.add("lerp", Lerp(build.types[y], rng.integers(-128, 128, (4, 5))), y)
    return build.program(y, **meta)


@pytest.fixture
def path(tmp_path):
    return small(recipe={"name": "test", "scales": [0.5, 1e-9]}).save(tmp_path / "program.npz")


def sealed(path, members: dict[str, bytes]):
    """A zip with a valid seal whatever its content: what only a forger or a bug could make."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = b"sha256:" + b"0" * 64
    body = buffer.getvalue()[:-64]
    path.write_bytes(body + hashlib.sha256(body).hexdigest().encode())
    return path


def header_of(path) -> dict:
    with np.load(path) as archive:
        return json.loads(archive["header"].tobytes())


def npy(array: np.ndarray) -> bytes:
    member = io.BytesIO()
    np.lib.format.write_array(member, array)
    return member.getvalue()


def with_members(path, **changed: bytes):
    """The file at `path` with other members, sealed again."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return sealed(path, members | {f"{name}.npy": content for name, content in changed.items()})


def with_header(path, header, right: bool = False):
    """The file at `path` with another header, sealed again; with `right`, its inner hash is right too."""
    if right:
        with np.load(path) as archive:
            arrays = [archive[f"array{k}"].astype(np.int64) for k in range(len(archive.files) - 1)]
        header = header | {"sha256": storage._digest({k: header[k] for k in ("inputs", "nodes", "result")}, arrays)}
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return with_members(path, header=npy(np.frombuffer(text, np.uint8)))


class TestRoundTrip:
    def test_equal(self, path):
        program, again = small(), Program.load(path)
        assert again.sha256 == program.sha256
        assert all(same(a.operation, b.operation) for a, b in zip(program.nodes, again.nodes, strict=True))
        assert again.meta == {"recipe": {"name": "test", "scales": [0.5, 1e-9]}}
        x = np.random.default_rng(1).integers(-128, 128, (9, 2, 3)).astype(np.int8)
        np.testing.assert_array_equal(again(x), program(x))

    def test_the_same_bytes_every_time(self, tmp_path):
        first, second = (small(a=1).save(tmp_path / name).read_bytes() for name in ("a.npz", "b.npz"))
        assert first == second

    def test_saved_over_an_older_one(self, path):
        small(version="two").save(path)
        assert Program.load(path).meta == {"version": "two"}
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    def test_one_result_is_named_and_several_are_a_list(self, path, tmp_path):
        assert header_of(path)["result"] == small().results[0]
        several = replace(small(), results=tuple(node.name for node in small().nodes[:2]))
        assert header_of(several.save(tmp_path / "several.npz"))["result"] == list(several.results)
        assert Program.load(tmp_path / "several.npz").results == several.results

    def test_plain_numpy_reads_the_arrays(self, path):
        with np.load(path, allow_pickle=False) as archive:
            assert any(np.array_equal(archive[name], small()["linear"].weight) for name in archive.files)


class TestDamage:
    def test_cut_anywhere(self, path):
        whole = path.read_bytes()
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            with pytest.raises(BittrueError, match="program .*program.npz: it is"):
                Program.load(path)
        path.write_bytes(whole[:-1])
        with pytest.raises(BittrueError, match="cut, altered at its end"):
            Program.load(path)

    def test_every_byte_counts(self, path):
        whole = path.read_bytes()
        for position in range(len(whole)):
            altered = bytearray(whole)
            altered[position] ^= 1 << (position % 8)
            path.write_bytes(altered)
            with pytest.raises(BittrueError, match="program.npz: it"):
                Program.load(path)

    def test_longer_than_written(self, path):
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(BittrueError, match="cut, altered at its end"):
            Program.load(path)


class TestForeign:
    def test_pickle_is_never_run(self, tmp_path):
        ran = tmp_path / "ran"

        class Bomb:
            def __reduce__(self):
                return os.mkdir, (str(ran),)

        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            (tmp_path / "p.npz").write_bytes(pickle.dumps(Bomb(), protocol))
            with pytest.raises(BittrueError, match="a pickle|not a bittrue program"):
                Program.load(tmp_path / "p.npz")
        np.savez(tmp_path / "q.npz", header=np.array([Bomb()], dtype=object))
        with zipfile.ZipFile(tmp_path / "q.npz") as archive:
            sealed(tmp_path / "q.npz", {name: archive.read(name) for name in archive.namelist()})
        with pytest.raises(BittrueError, match="not a bittrue program"):
            Program.load(tmp_path / "q.npz")
        assert not ran.exists()

    def test_another_npz(self, tmp_path):
        np.savez(tmp_path / "other.npz", weight=np.ones(3))
        with pytest.raises(BittrueError, match="not written by bittrue"):
            Program.load(tmp_path / "other.npz")

    def test_text_and_absence(self, tmp_path):
        (tmp_path / "t.npz").write_text("hello")
        with pytest.raises(BittrueError, match="not a bittrue program"):
            Program.load(tmp_path / "t.npz")
        with pytest.raises(BittrueError, match=r"none.npz: cannot be read \(No such file"):
            Program.load(tmp_path / "none.npz")
        with pytest.raises(BittrueError, match="cannot be read"):
            Program.load(tmp_path)

    def test_a_newer_version(self, path, monkeypatch):
        with monkeypatch.context() as newer:
            newer.setattr(storage, "VERSION", storage.VERSION + 1)
            small().save(path)
        with pytest.raises(BittrueError, match=r"written by a newer bittrue \(file version 2.*upgrade bittrue"):
            Program.load(path)

    def test_an_operation_of_a_newer_version(self, path):
        header = header_of(path)
        header["nodes"][0][1]["is"] = "Attention"
        with pytest.raises(BittrueError, match="it uses the operation 'Attention'"):
            Program.load(with_header(path, header, right=True))

    @pytest.mark.parametrize("text", [b"{", b"[]", b"null", b'{"magic": "bittrue program"}', b"\xff\xfe"])
    def test_sealed_but_no_header_of_ours(self, path, text):
        with pytest.raises(BittrueError, match="not a bittrue program"):
            Program.load(with_header(path, text))

    @pytest.mark.parametrize("key", ["nodes", "inputs", "result", "sha256", "meta"])
    def test_sealed_but_incomplete(self, path, key):
        header = header_of(path)
        del header[key]
        with pytest.raises(BittrueError, match="program.npz: its header is not one that bittrue writes"):
            Program.load(with_header(path, header))

    def test_sealed_but_with_other_numbers(self, path):
        header = header_of(path)
        header["nodes"][0][1]["has"]["requantize"]["has"]["floor"] = 0
        with pytest.raises(BittrueError, match="its operations do not match its hash"):
            Program.load(with_header(path, header))


def claiming(shape: str, descr: str = "'<i8'") -> bytes:
    """An array of which only the header is there."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


class TestDamagedMembers:
    """The outer hash is right, and what it seals is not: a forger, or a fault of whatever wrote it."""

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (
                claiming("(100000000000000,)"),
                r"says 800000000000000 bytes of shape \(100000000000000,\), but 0 are there",
            ),
            (claiming("(10, 100000000000000)"), "but 0 are there"),
            (claiming("(-1,)"), "its header has the shape"),
            (claiming("(True,)"), "its header"),
            (claiming("(4,)", "[('a', '<i8'), ('b', '<i8')]"), "and not numbers"),
            (claiming("(4,)", "'<U8'"), "and not numbers"),
            (claiming("(4,)", "'|O'"), "and not numbers"),
            (claiming("{" * 3000), "its header is not one of numpy"),
            (claiming("(" * 3000), "its header is not one of numpy"),
            (b"", "its header is not one of numpy"),
            (npy(np.ones(4)), "holds float64, and not integers"),
            (npy(np.ones(4, np.int64))[:-1], "says 32 bytes of shape .*, but 31 are there"),
            (npy(np.ones(4, np.int64)) + b"1", "says 32 bytes of shape .*, but 33 are there"),
        ],
    )
    def test_arrays(self, path, content, reason):
        with pytest.raises(
            BittrueError, match=f"program .*not a bittrue program .member 'array0': .*{reason}|{reason}"
        ):
            Program.load(with_members(path, array0=content))

    def test_compressed_data(self, path):
        """Every third byte of the zip altered in turn, in four ways, and the outer hash made right."""
        whole, loaded = path.read_bytes()[:-64], Program.load(path).sha256
        outcomes = set()
        for position in range(0, len(whole) - 7, 3):
            altered = bytearray(whole)
            altered[position] ^= (1, 16, 128, 255)[position % 4]
            path.write_bytes(bytes(altered) + hashlib.sha256(altered).hexdigest().encode())
            with contextlib.suppress(BittrueError):
                outcomes.add(Program.load(path).sha256)
        assert outcomes <= {loaded}  # a date, say, changes nothing

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (b"[" * 100_000, "nested more than 32 deep"),
            (b"[" * 40 + b"]" * 40, "nested more than 32 deep"),
            (b'{"magic": 1, "magic": 2}', "the key 'magic' is there twice"),
            (b"1" * 5000, "a number of 5000 digits"),
        ],
    )
    def test_header(self, path, text, reason):
        with pytest.raises(BittrueError, match=f"not a bittrue program .*{reason}"):
            Program.load(with_header(path, text))

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_two_members_of_one_name(self, path):
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, member in [*members, members[-1]]:
                archive.writestr(name, member)
            archive.comment = b"sha256:" + b"0" * 64
        body = buffer.getvalue()[:-64]
        path.write_bytes(body + hashlib.sha256(body).hexdigest().encode())
        with pytest.raises(BittrueError, match="is there twice"):
            Program.load(path)

    @pytest.mark.parametrize("meta", [None, 5, [], "text"])
    def test_meta_has_keys(self, path, meta):
        with pytest.raises(BittrueError, match="its meta is .* and not keys with values"):
            Program.load(with_header(path, header_of(path) | {"meta": meta}))

    @pytest.mark.parametrize("value", [10**14, -1, "text", None, [], {}, True, 1.5, {"array": 99}, {"array": -1}])
    def test_fields_of_operations(self, path, value):
        """With both hashes right: every field of every part, one at a time, takes a value of another kind."""
        places = []

        def walk(part):
            for key, inner in part["has"].items():
                places.append((part["has"], key))
                if isinstance(inner, dict) and "has" in inner:
                    walk(inner)

        header = header_of(path)
        for _, operation, _ in header["nodes"]:
            walk(operation)
        refused = 0
        for part, key in places:
            before, part[key] = part[key], value
            try:
                Program.load(with_header(path, header, right=True))
            except BittrueError:
                refused += 1
            part[key] = before
        assert refused > len(places) / 2


class TestWriting:
    def test_a_full_disk_leaves_the_old_file(self, path, monkeypatch):
        old = path.read_bytes()

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "replace", full)
            with pytest.raises(BittrueError, match="program.npz: cannot be written .No space left on device.; free"):
                small(other=1).save(path)
        assert path.read_bytes() == old
        assert [p.name for p in path.parent.iterdir()] == [path.name], "a temporary file was left behind"

    def test_meta_that_is_no_json_is_refused_before_writing(self, tmp_path):
        with pytest.raises(BittrueError, match="meta holds something that is not JSON"):
            small(bad={1, 2}).save(tmp_path / "p.npz")
        assert list(tmp_path.iterdir()) == []


def test_one_result_is_written_as_its_name_and_several_as_a_list():
    """So that files, and the hashes of programs, of versions that knew only one result stay as they are."""
    program = small()
    assert storage._content(program)[0]["result"] == "lerp"
    several = Program(program.inputs, program.nodes, ("linear", "lerp"))
    assert storage._content(several)[0]["result"] == ["linear", "lerp"]
    assert program.sha256 == "474d9ed1b01c65b33790b295961c5c2e2e049b96ac2ee0888ded4f0d24da17c3"
