"""The mutants of `downpour bench mutants`: faults of one line each, which the simulation should detect."""

# ruff: noqa: E501 - lines of the sources are quoted as they are

from __future__ import annotations

from dataclasses import dataclass

NOTHING = "pass  # mutant"


@dataclass(frozen=True)
class Mutant:
    """A line of the source and the faulty one that replaces it.

    Attributes:
        name: The name of the mutant.
        file: The file, relative to the root of the sources.
        before: A text that occurs once in the file.
        after: The text that replaces it.
    """

    name: str
    file: str
    before: str
    after: str


def _of(file: str, *rows: tuple[str, str, str]) -> list[Mutant]:
    return [Mutant(name, file, before, after) for name, before, after in rows]


MUTANTS: tuple[Mutant, ...] = (
    *_of(
        "ps/coordinator/ledger.py",
        ("positions leased twice", "self._epoch, self._position = (epoch, stop) if", "self._epoch, self._position = (epoch, stop - 1) if"),
        ("a lease of another worker", "if lease is None or lease.worker != worker:", "if lease is None:"),
        ("a lease used out of order", "or start != lease.next or not start", "or not start"),
        ("one used sample too few", "self._used[lease.epoch] += stop - lease.next", "self._used[lease.epoch] += stop - lease.next - 1"),
        ("a dead worker's last push forgotten", "if lease.next < reached <= lease.stop:", "if False:"),
        ("used samples leased again", "sorted([*self._returned, (lease.epoch, lease.next, lease.stop)])", "sorted([*self._returned, (lease.epoch, lease.start, lease.stop)])"),
        ("a dead worker's lease is lost", "        return [lease.number for lease in held]", "        return [lease.number for lease in held[1:]]"),
        ("leased samples missing in a checkpoint", "return sorted([*self._returned, *held])", "return sorted(self._returned)"),
        ("a free range lost at a restore", "self._returned, self._leases = deque(spans), {}", "self._returned, self._leases = deque(spans[1:]), {}"),
        ("free samples counted as used", "self._used[e] -= stop - start", NOTHING),
        ("finished one sample early", "return self.used_total == self.total", "return self.used_total >= self.total - 1"),
    ),
    *_of(
        "ps/coordinator/orphaned_leases.py",
        ("leases settled before all shards reported", "self._open[worker, incarnation] = _Orphans(ledger.suspend(worker), view, set(range(shards)))", "self._open[worker, incarnation] = _Orphans(ledger.suspend(worker), view, {0})"),
        ("partial pushes leased again", "reached = max((push.stop", "reached = min((push.stop"),
        ("leases settled at an older view", "if orphans.view <= view:", "if True:"),
        ("partial pushes not counted", "self.partial += max(numbers) - min(numbers)", NOTHING),
        ("a shard's report on a dead worker ignored", "orphans.newest[shard] = departed", NOTHING),
    ),
    *_of(
        "ps/core/dedup.py",
        ("the last push applied twice", "if seq > member.last_seq:", "if seq >= member.last_seq:"),
        ("outcomes under the wrong number", "member.results[push.seq] = result", "member.results[push.seq + 1] = result"),
        ("no outcome remembered", "REMEMBERED_OUTCOMES = 64", "REMEMBERED_OUTCOMES = 0"),
        ("only a first push is recognised", "self._members[push.worker].last_seq = push.seq", "self._members[push.worker].last_seq = 1"),
    ),
    *_of(
        "ps/core/shard.py",
        ("staleness off by one", "staleness = self.version - push.base_version\n", "staleness = self.version - push.base_version + 1\n"),
        ("clocks stand still", "self._consistency.tick(push.worker)", NOTHING),
        ("an applied push is counted as waiting", "            self._senders[push.worker] -= 1\n", "            pass\n"),
        ("the version survives a restore", "self.version, self.generation = version, generation", "self.generation = generation"),
        ("buffered pushes survive a restore", "self._pending.clear()", NOTHING),
        ("workers wait for a resting one", "self._consistency.leave(worker)\n", "pass\n"),
        ("waiting workers are not checked again", "self._moves += 1\n        self._settle()", "self._settle()"),
        ("a worker that left waits", "return worker not in self._outcomes or self._consistency", "return self._consistency"),
        ("an update without its gradient", "            self._commit(spare)\n            return", "            return"),
    ),
    *_of(
        "ps/data_plane/cut.py",
        ("a cut holds nothing back", "return seq <= self._limits.get(incarnation, 0)", "return True"),
        ("a cut waits for no push", "return self._has_targets and all(admitted.get(each, 0) >= self._limits.get(each, 0) for each in live)", "return self._has_targets"),
        ("a cut at the oldest pushes", "self._newest[incarnation] = max(self._newest.get(incarnation, 0), r.seq)", "self._newest[incarnation] = min(self._newest.get(incarnation, r.seq), r.seq)"),
        ("a departed worker's push not reported", "push = self.newest.pop((member.worker, member.incarnation), None)", "push = None"),
        ("held pushes never released", "        if hold is not None:\n            hold.release()", "        if hold is not None:\n            pass"),
        ("a cut taken before its targets are known", "self._has_targets = False", "self._has_targets = True"),
    ),
    *_of(
        "ps/control_plane/checkpointer.py",
        ("a cut goes on although a worker left", "self.abandon(now)  # some of its pushes", "pass  # some of its pushes"),
        # A cut that begins with open leases of the dead, which this place replaces, is always abandoned in time: each
        # shard reports the departure before it reports the pushes that it holds.
        ("parts of an earlier cut are used", 'elif event.HasField("part") and event.part.number == cut.round.number:', 'elif event.HasField("part"):'),
        ("a trace that is not flushed", "self._run.traces.sync()", NOTHING),
        ("an abandoned cut still holds pushes", "self._job.send(cut=pb.Cut(number=cut.round.number, abandon=True))", NOTHING),
    ),
    *_of(
        "ps/control_plane/job_snapshot.py",
        ("a checkpoint without free ranges", "unused=tuple(ledger.unused())", "unused=()"),
        ("incarnations begin again", "coordinator.job.membership.remember(facts.incarnations)", NOTHING),
        ("the trace of a checkpoint is empty", "records=s.records,", "records=0,"),
        ("buffered pushes lost by a checkpoint", "free = set.intersection(*waiting)", "free = set()"),
        ("the checkpoint's ledger is not restored", "coordinator.work.ledger.restore(facts.ledger.unused, facts.ledger.epoch, facts.ledger.position)", NOTHING),
    ),
    *_of(
        "ps/control_plane/recovery.py",
        ("the trace is not cut at a restore", "lacking = self._run.traces.cut([state.records for state in states], versions)", "lacking: dict[int, int] = {}"),
        ("a cut survives the loss of a shard", "self._checkpointer.abandon(now)", NOTHING),
        ("a resumed run begins anew", "if resume and generation > 1:", "if False:"),
        ("a shard is not restored", "self._effects.restore(shard, state, checkpoint.number)", "shard or self._effects.restore(shard, state, checkpoint.number)"),
    ),
    *_of(
        "ps/control_plane/effects.py",
        ("events of an earlier generation", "if event.generation and event.generation != self._coordinator.job.generation:", "if False:"),
        ("snapshots are not delivered", "            self._checkpointer.take_state(output.number, output.state)", "            output.state.release()"),
    ),
    *_of(
        "ps/control_plane/model_upload.py",
        ("a torn upload is published", "if size != announced.size_bytes or digest.digest() != announced.sha256:", "if False:"),
        ("a model that is not flushed", "atomic_write(path, durable=True)", "atomic_write(path)"),
    ),
    *_of(
        "ps/storage/run_directory.py",
        ("a generation begins twice", "generation = self._last_generation() + 1", "generation = self._last_generation() or 1"),
    ),
    *_of(
        "ps/storage/atomic_file.py",
        ("contents are not flushed", "            disk.flush(place)", "            pass"),
        ("names are not flushed", "            disk.flush(path.parent)", "            pass"),
    ),
    *_of(
        "ps/storage/checkpoint_file.py",
        ("the oldest checkpoint is used", "return sorted((int(name[1]) for name in names if name), reverse=True)", "return sorted(int(name[1]) for name in names if name)"),
        ("a damaged checkpoint is used", "if vector.dtype != np.float32 or vector.ndim != 1 or sums.get(key) != _sum(vector):", "if False:"),
    ),
    *_of(
        "ps/trace/files.py",
        ("records are lost while the disk is full", "        except OSError as error:\n            self.trouble = reason_of(error)\n", "        except OSError as error:\n            self.trouble = reason_of(error)\n            waiting.clear()\n"),
    ),
    *_of(
        "ps/coordinator/membership.py",
        ("an incarnation has an older one's number", "incarnation = self._incarnations.get(worker, 0) + 1", "incarnation = self._incarnations.get(worker, 1)"),
        ("sessions never expire", "if member.expires_at <= now]", "if False]"),
        ("sessions are not renewed", "member.expires_at = now + self._session_s", NOTHING),
        ("sessions survive a generation", "        self._members.clear()", "        pass"),
    ),
    *_of(
        "ps/coordinator/coordinator.py",
        ("a worker is not fenced by its successor", 'self.leave(wanted, now, f"worker {wanted} was started again: the older process is fenced")', NOTHING),
        ("reports on departed workers are ignored", "job.orphans.record(shard, event.departed)", NOTHING),
    ),
    *_of(
        "ps/data_plane/shard_commands.py",
        # Members and waiting replies that survive a generation, which this place replaces, leave with the view in the
        # same command.
        ("a member that left stays", "                self._remove(member)", "                pass"),
        ("a cut survives a generation", "runtime.cut.clear()", NOTHING),
        ("departures are not reported", "runtime.emit(departed=runtime.cut.departed(member))", NOTHING),
        ("weights of another initialisation stay", "if command.initialisation > runtime.initialisation:", "if False:"),
        ("waiters are not released by a new view", "runtime.waiters.release(runtime.shard)\n        runtime.emit(view_seen", "runtime.emit(view_seen"),
    ),
    *_of(
        "ps/data_plane/shard_runtime.py",
        ("duplicates are applied", "        if known is not None:\n            self.metrics.duplicates", "        if False:\n            self.metrics.duplicates"),
        ("a push of an earlier generation", "if header.generation != shard.generation:", "if False:"),
        ("any samples may be used", "            self.ledger.check(push)", "            pass"),
        ("used samples are not recorded", "            self.ledger.used(push)", "            pass"),
        ("waiting workers are not released", "        self.waiters.release(shard)\n        return result, False", "        return result, False"),
        ("void weights are kept", "self.generation, self.void = generation, self.void or self.shard is not None", "self.generation = generation"),
    ),
    *_of(
        "ps/data_plane/request_handler.py",
        ("a push in another incarnation's name", "            _check_sender(header, member)\n", ""),
    ),
    *_of(
        "worker/exchange/client.py",
        ("a push has its predecessor's number", "self._seq += 1", "self._seq = max(1, self._seq)"),
    ),
    *_of(
        "worker/exchange/transport.py",
        ("a request is not repeated", "            self._repeat()", "            pass"),
    ),
)  # fmt: skip
