"""The ledger and the floors below it: one writer per unit, written once, and nothing read that is not committed."""

import contextlib
import dataclasses
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_tools import be_reborn, contents, new_run, new_table, s3_server, values

import stores
from stores.floor import Floor, LocalFloor
from stores.ledger import Ledger
from stores.names import safe_key
from stores.owners import Owner, _stat
from stores.remote import ObjectFloor, remote_floor
from stores.schema import content_of


@pytest.fixture(params=["local", "memory", "s3"])
def floor(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Floor]:
    if request.param == "local":
        yield LocalFloor(tmp_path / "floor")
    elif request.param == "memory":
        store = pytest.importorskip("obstore.store", reason="obstore is not installed")
        yield ObjectFloor(store.MemoryStore(), "memory://")
    else:
        with s3_server(monkeypatch) as bucket:
            yield remote_floor(f"{bucket}/some/prefix")


def test_files_by_key(floor: Floor) -> None:
    assert floor.read("a/b") is None and floor.size("a/b") is None and floor.names("a") == []
    floor.put("a/b=2f.json", b"one")
    floor.put("a/b=2f.json", b"two!")
    floor.put("a/c/d", b"")
    assert floor.read("a/b=2f.json") == b"two!" and floor.size("a/b=2f.json") == 4
    assert floor.names("a") == ["b=2f.json", "c"]
    assert floor.sizes("a") == {"a/b=2f.json": 4, "a/c/d": 0}
    floor.delete("a/c/d")
    floor.delete("a/c/d")
    assert floor.read("a/c/d") is None


def test_create_is_for_one_only(floor: Floor) -> None:
    won: list[int] = []
    barrier = threading.Barrier(8)

    def attempt(number: int) -> None:
        barrier.wait()
        if floor.create("x/claim", f"{number}".encode()):
            won.append(number)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and floor.read("x/claim") == str(won[0]).encode()


def test_a_unit_counts_once_committed(floor: Floor) -> None:
    ledger = Ledger(floor)
    floor.put("t/0", b"not committed")
    assert ledger.commit("t/0") is None and ledger.units("t") == []
    with pytest.raises(KeyError):
        ledger.read("t/0")
    ledger.write("t/0", {"t/0": b"data"}, {"rows": [0, 4]})
    commit, files = ledger.read("t/0")
    assert (commit.content, files, ledger.units("t")) == ({"rows": [0, 4]}, {"t/0": b"data"}, ["0"])
    assert ledger.leases() == []


def test_the_same_again_heals_and_other_bytes_are_refused(floor: Floor) -> None:
    ledger = Ledger(floor)
    ledger.write("t/0", {"t/0": b"data"}, {})
    floor.put("t/0", b"dat?")
    with pytest.raises(stores.Damaged, match="checksum"):
        ledger.read("t/0")
    with pytest.raises(stores.StoreError, match="committed already"):
        ledger.write("t/0", {"t/0": b"dat?"}, {})
    ledger.write("t/0", {"t/0": b"data"}, {})
    assert ledger.read("t/0")[1] == {"t/0": b"data"}


def test_a_claim_keeps_others_out(floor: Floor) -> None:
    ledger, other = Ledger(floor), Ledger(floor)
    with ledger.claim("t/0") as claim:
        with pytest.raises(stores.StoreBusy, match=f"t/0 is being written by process {os.getpid()} on"):
            other.write("t/0", {}, {})
        other.write("t/1", {}, {})
        ledger.write("t/0", {"t/0": b"x"}, {}, claim)
    other.write("t/0", {"t/0": b"x"}, {})
    assert ledger.leases() == []


def test_the_claim_of_a_dead_process_is_taken_over(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    be_reborn(monkeypatch)
    abandoned = Ledger(floor).claim("t/0")
    abandoned.__enter__()
    be_reborn(monkeypatch)
    ledger = Ledger(floor)
    assert [(lease.unit, lease.holder) for lease in ledger.leases()] == [("t/0", None)]
    with ledger.claim("t/0"), pytest.raises(stores.StoreBusy):
        ledger.write("t/0", {}, {})
    assert ledger.leases() == []


@pytest.mark.parametrize("same", [True, False])
def test_the_claim_of_before_a_machine_was_started_anew_is_taken_over(
    floor: Floor, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """The same installation under another boot id: nothing of then is left. Of others nothing is known."""
    monkeypatch.setattr("stores.owners._system", lambda: "installation")
    before = dataclasses.replace(
        Owner.me(), machine="0123456789ab", boot="before", system="installation" if same else "another"
    )
    with monkeypatch.context() as then:
        then.setattr(Owner, "me", classmethod(lambda cls: before))
        abandoned = Ledger(floor).claim("t/0")
        abandoned.__enter__()
    taken = contextlib.nullcontext() if same else pytest.raises(stores.StoreBusy)
    with taken:
        Ledger(floor).write("t/0", {}, {})
    abandoned.__exit__(None, None, None)


def test_the_claim_of_another_machine_is_respected(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(floor)
    elsewhere = dataclasses.replace(Owner.me(), machine="0123456789ab", host="node7")
    with monkeypatch.context() as there:
        there.setattr(Owner, "me", classmethod(lambda cls: elsewhere))
        held = ledger.claim("t/0")
        held.__enter__()
    with pytest.raises(stores.StoreBusy, match="node7"):
        ledger.write("t/0", {}, {})
    ledger.sweep()
    with pytest.raises(stores.StoreBusy, match="node7"):
        ledger.write("t/0", {}, {})
    ledger.release("t/0")
    ledger.write("t/0", {}, {})


def test_a_commit_record_with_one_bit_flipped_is_told() -> None:
    memory = pytest.importorskip("obstore.store", reason="obstore is not installed").MemoryStore()
    floor = ObjectFloor(memory, "memory://")
    ledger = Ledger(floor)
    ledger.write("t/0", {"t/0": b"data"}, {"rows": [0, 4]})
    sound = floor.read("ledger/commits/t/0.json")
    assert sound is not None
    for position in range(len(sound)):
        flipped = bytearray(sound)
        flipped[position] ^= 1
        floor.put("ledger/commits/t/0.json", bytes(flipped))
        with pytest.raises((stores.Damaged, stores.UnknownVersion)):
            ledger.commit("t/0")
    floor.put("ledger/commits/t/0.json", b"")
    with pytest.raises(stores.Damaged, match="check --repair"):
        ledger.commit("t/0")


WRITER = """
import sys
sys.path.insert(0, {tests!r})
import store_tools, stores
table = stores.open({path!r}, "r+").table("relevance/test")
with table.claim(1) as claim:
    print("holding", flush=True)
    sys.stdin.readline()
    table.write(1, store_tools.values(table.shards[1]), claim=claim)
print("written", flush=True)
"""


@pytest.fixture
def second_process(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the claim on shard 1 until it reads a line."""
    run = new_run(tmp_path / "run.zarr")
    new_table(run)
    script = WRITER.format(tests=str(Path(__file__).parent), path=str(run.path))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "holding\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_and_its_work_is_seen(
    tmp_path: Path, second_process: "subprocess.Popen[str]"
) -> None:
    table = stores.open(tmp_path / "run.zarr", "r+").table("relevance/test")
    with pytest.raises(stores.StoreBusy, match=f"process {second_process.pid} on"):
        table.write(1, values(table.shards[1]))
    for shard in (0, 2):
        table.write(shard, values(table.shards[shard]))
    assert table.missing() == [1]
    output, _ = second_process.communicate("go\n")
    assert output == "written\n" and table.complete
    assert table.read("score").tolist() == values(range(10))["score"].tolist()


def test_a_killed_process_leaves_nothing_in_the_way(
    tmp_path: Path, second_process: "subprocess.Popen[str]"
) -> None:
    second_process.kill()
    second_process.wait()
    run = stores.open(tmp_path / "run.zarr", "r+")
    assert not any("leases/" in key or "/tmp/" in key for key in contents(tmp_path))
    run.table("relevance/test").write(1, values(range(4, 8)))


@pytest.mark.parametrize("kind", ["folder", "loop", "dangling link"])
def test_what_is_no_file_is_no_lease(tmp_path: Path, kind: str) -> None:
    ledger = Ledger(LocalFloor(tmp_path))
    lease = tmp_path / "ledger/leases" / f"{safe_key('t/0')}-0011223344556677"
    lease.parent.mkdir(parents=True)
    if kind == "folder":
        lease.mkdir()
    else:
        lease.symlink_to(lease if kind == "loop" else tmp_path / "nowhere")
    assert ledger.leases() == []
    ledger.sweep()
    ledger.write("t/0", {}, {})
    assert ledger.commit("t/0") is not None


def test_owners() -> None:
    me = Owner.me()
    assert me.alive and me.here and Owner.from_mark(me.mark).mark == me.mark
    assert not dataclasses.replace(me, pid=2**22 + 1).alive
    assert not dataclasses.replace(
        me, start=me.start + 1
    ).alive  # the number is used again by another process
    assert dataclasses.replace(me, machine="elsewhere").alive
    assert not Owner.from_mark("nonsense").alive


def test_a_process_for_whom_nobody_has_waited_is_not_alive() -> None:
    """In a container whose first process reaps nothing a killed writer stays in the list of processes for ever."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    owner = dataclasses.replace(Owner.me(), pid=child.pid, start=_stat(child.pid).start)
    assert owner.alive
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is not reaped
    try:
        os.kill(child.pid, 0)
        assert not owner.alive
    finally:
        child.wait()
    assert not owner.alive


def test_leases_name_their_owner_and_nothing_secret(tmp_path: Path) -> None:
    floor = LocalFloor(tmp_path)
    with Ledger(floor).claim("a/b"):
        [lease] = [json.loads(data) for key, data in contents(tmp_path).items() if "leases" in key]
    assert set(lease) == {"unit", "machine", "pid", "start", "host", "system", "boot", "token"}
    assert lease["pid"] == os.getpid()


class Turns:
    """Actors, each a thread, of which one at a time does one operation on the floor, in an order that is given."""

    def __init__(self, order: random.Random) -> None:
        self.order = order
        self.changed = threading.Condition()
        self.waiting: set[str] = set()
        self.turn: str | None = None

    def wait(self) -> None:
        """Called by an actor before each operation."""
        me = threading.current_thread().name
        with self.changed:
            self.waiting.add(me)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.turn == me)
            self.turn = None
            self.waiting.remove(me)

    def play(self, *actors: Callable[[], object]) -> None:
        threads = {f"actor {number}": actor for number, actor in enumerate(actors)}
        errors: list[BaseException] = []

        def run(name: str, actor: Callable[[], object]) -> None:
            try:
                actor()
            except BaseException as error:  # told by the main thread
                errors.append(error)
            with self.changed:
                del threads[name]
                self.changed.notify_all()

        started = [threading.Thread(target=run, args=item, name=item[0]) for item in threads.items()]
        for thread in started:
            thread.start()
        with self.changed:
            while threads:
                self.changed.wait_for(lambda: self.turn is None and self.waiting == set(threads))
                if threads:
                    self.turn = self.order.choice(sorted(self.waiting))
                    self.changed.notify_all()
        for thread in started:
            thread.join()
        if errors:
            raise errors[0]


class Stepped(LocalFloor):
    """A floor on which every operation waits for its turn."""

    def __init__(self, root: Path, turns: Turns) -> None:
        super().__init__(root)
        self.turns = turns

    def read(self, key: str) -> bytes | None:
        self.turns.wait()
        return super().read(key)

    def put(self, key: str, data: bytes) -> None:
        self.turns.wait()
        super().put(key, data)

    def create(self, key: str, data: bytes, *, leased: bool = False) -> bool:
        self.turns.wait()
        return super().create(key, data, leased=leased)

    def delete(self, key: str) -> None:
        self.turns.wait()
        super().delete(key)

    def names(self, prefix: str) -> list[str]:
        self.turns.wait()
        return super().names(prefix)


@pytest.mark.parametrize("seed", range(40))
def test_one_holder_in_whatever_order_the_steps_of_several_come(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    be_reborn(monkeypatch)
    abandoned = Ledger(LocalFloor(tmp_path)).claim("t/0")
    abandoned.__enter__()
    be_reborn(monkeypatch)  # a dead one's lease is in the way as well
    turns = Turns(random.Random(seed))
    holders, overlaps, held = [0], [0], [0]

    def work() -> None:
        ledger = Ledger(Stepped(tmp_path, turns))
        for _ in range(3):
            with contextlib.suppress(stores.StoreBusy), ledger.claim("t/0"):
                overlaps[0] += holders[0]
                holders[0] += 1
                ledger.floor.read("anything")  # others have their turns meanwhile
                ledger.floor.read("anything")
                holders[0] -= 1
                held[0] += 1

    turns.play(work, work, work, Ledger(Stepped(tmp_path, turns)).sweep)
    assert overlaps == [0] and held[0] > 0
    assert Ledger(LocalFloor(tmp_path)).leases() == []


def test_of_two_that_come_at_once_one_gets_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    for seed in range(20):
        turns = Turns(random.Random(seed))
        won: list[str] = []

        def attempt(turns: Turns = turns, won: list[str] = won) -> None:
            with contextlib.suppress(stores.StoreBusy):
                won.append(Ledger(Stepped(tmp_path, turns))._acquire("t/0").token)

        turns.play(attempt, attempt)
        assert len(won) == 1
        Ledger(LocalFloor(tmp_path)).release("t/0")


def test_a_writer_that_starts_between_another_s_look_and_its_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ends between the second's listing and its look at the lease; a third starts right then."""
    first, second, third = (Ledger(LocalFloor(tmp_path)) for _ in range(3))
    ending, starting = first.claim("t/0"), third.claim("t/0")
    ending.__enter__()
    listed = LocalFloor.names

    def names(floor: LocalFloor, prefix: str) -> list[str]:
        found = listed(floor, prefix)
        if floor is second.floor:
            monkeypatch.setattr(LocalFloor, "names", listed)
            ending.__exit__(None, None, None)
            starting.__enter__()
        return found

    monkeypatch.setattr(LocalFloor, "names", names)
    with pytest.raises(stores.StoreBusy), second.claim("t/0"):
        pass
    assert [lease.holder for lease in second.leases()] == [Owner.me()]


def test_a_sweep_spares_the_successor_of_the_dead_one_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_reborn(monkeypatch)
    abandoned = Ledger(LocalFloor(tmp_path)).claim("t/0")
    abandoned.__enter__()
    be_reborn(monkeypatch)
    sweeper, successor = Ledger(LocalFloor(tmp_path)), Ledger(LocalFloor(tmp_path))
    found = sweeper.leases()
    with successor.claim("t/0"):
        monkeypatch.setattr(sweeper, "leases", lambda: found)
        sweeper.sweep()
        with pytest.raises(stores.StoreBusy):
            sweeper.write("t/0", {}, {})


def test_who_lost_his_claim_writes_nothing_more(floor: Floor) -> None:
    ledger, other = Ledger(floor), Ledger(floor)
    with ledger.claim("t/0") as claim:
        other.release("t/0", dataclasses.replace(Owner.me(), pid=1))
        ledger.write("t/0", {"t/0": b"mine"}, {}, claim)
    with ledger.claim("t/1") as claim:
        with pytest.raises(stores.StoreError, match="claim is on t/1"):
            ledger.write("t/2", {}, {}, claim)
        other.release("t/1")
        other.write("t/1", {"t/1": b"other"}, {})
        with pytest.raises(stores.StoreBusy, match="not held any more"):
            ledger.write("t/1", {"t/1": b"mine"}, {}, claim)
    assert ledger.read("t/1")[1] == {"t/1": b"other"}


def test_a_commit_that_came_first_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, other = Ledger(LocalFloor(tmp_path)), Ledger(LocalFloor(tmp_path))
    create = LocalFloor.create

    def late(floor: LocalFloor, key: str, data: bytes, *, leased: bool = False) -> bool:
        monkeypatch.setattr(LocalFloor, "create", create)
        ledger.release("t/0")
        other.write("t/0", {"t/0": b"other"}, {})
        return create(floor, key, data, leased=leased)

    monkeypatch.setattr(LocalFloor, "create", late)
    with pytest.raises(stores.StoreError, match="committed already, with other content"):
        ledger.write("t/0", {"t/0": b"mine!"}, {})
    assert ledger.read("t/0")[1] == {"t/0": b"other"}


def test_a_commit_record_of_another_shard_is_not_read(tmp_path: Path) -> None:
    table = new_table(new_run(tmp_path / "run.zarr"))
    for shard in (0, 1):
        table.write(shard, values(table.shards[shard]))
    commits = tmp_path / "run.zarr/ledger/commits/relevance/test"
    (commits / "1.json").write_bytes((commits / "0.json").read_bytes())
    with pytest.raises(stores.Damaged, match="is that of relevance/test/0"):
        stores.open(tmp_path / "run.zarr").table("relevance/test").read("score", rows=[5])


@pytest.mark.parametrize("version", [[1], {}, True, 1.0, "1", None])
def test_a_version_that_is_no_number_known_is_refused(version: object) -> None:
    record = {"spray": {"type": "run", "version": version}}
    with pytest.raises(stores.UnknownVersion):
        content_of(record, "run", "here")
