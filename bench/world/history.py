"""The corrections of past faults, each undone: `downpour bench mutants --history` plants the faults again."""

# ruff: noqa: E501 - lines of the sources are quoted as they are

from __future__ import annotations

from downpour.bench.world.mutants import Mutant

UNNOTED_GENERATION = """        if not numbers(self.checkpoints):
            return 0
        checkpoint, _ = newest(self.checkpoints)
        return max(1, checkpoint.facts.generation) if checkpoint is not None else 1

    def note_generation(self, generation: int) -> None:
        \"\"\"Record the newest generation for the next start, and remove replay data of the one before.\"\"\"
        self.calls.drop()
        (self.path / "initial.safetensors").unlink(missing_ok=True)
        with atomic_write(self.path / "generation", durable=True) as place:"""

HISTORY: tuple[Mutant, ...] = (
    Mutant("a model whose upload broke off is published", "ps/control_plane/model_upload.py", "if size != announced.size_bytes or digest.digest() != announced.sha256:", "if False:"),
    Mutant("overlapping workers' gradients are not compensated", "ps/data_plane/shard_builder.py", "version_depth=2 if settings.overlap else 1,", "version_depth=1,"),
    Mutant("a learning rate of 0 is divided by", "ps/core/staleness.py", "return 1.0 / max(1.0, bound)", "return min(learning_rate, learning_rate / bound) / learning_rate"),
    Mutant("a run whose generation is not on the disk starts over", "ps/storage/run_directory.py", UNNOTED_GENERATION, UNNOTED_GENERATION[UNNOTED_GENERATION.index("\n\n    def") :].replace(", durable=True", "").replace("\n\n", "        return 0\n\n", 1)),
    Mutant("a job that is stopped while it recovers counts as never begun", "ps/coordinator/training_work.py", "elif job.phase == Phase.RECOVERING or job.resumed or job.elapsed_s:", "elif False:"),
    Mutant("a repeated report is refused", "ps/coordinator/training_work.py", "if member.last_report == report and member.worker not in self.tasks.assigned:", "if False:"),
    Mutant("a report of an unknown task is not foreseen", "ps/coordinator/evaluations.py", "{_name_of(request.kind)}", "{pb.TaskKind.Name(request.kind)}"),
    Mutant("a server that starts on a full disk ends", "ps/server.py", "            except OSError as error:\n                if reason_of(error) != reported:", "            except EOFError as error:\n                if reason_of(error) != reported:"),
    Mutant("an ended run is resumed", "ps/storage/ended_run.py", 'return found.get("status") == "ended" and not (isinstance(planned, int) and planned < epochs)', "return False"),
    Mutant("a server that pauses is not joined again", "worker/exchange/session.py", "SILENT = (Unreachable, DeadlineExceeded)", "SILENT = (Unreachable,)"),
    Mutant("every note of a failed checkpoint is another one", "ps/control_plane/checkpointer.py", "return failure.strerror if isinstance(failure, OSError) and failure.strerror else str(failure)", "return str(failure)"),
    Mutant("a signal to all processes saves no model", "worker/train/loop.py", "if not job_drains(self._control, self._session.number):", "if True:"),
    Mutant("the name of a new trace is not flushed", "ps/trace/files.py", "            self._new_names = False\n            disk.flush(self._folder)", "            self._new_names = False"),
    Mutant("a trace that lacks records is accepted", "ps/trace/files.py", "return {shard: count for shard, count in lacking.items() if count}", "return {}"),
    Mutant("the summary is written before the trace is flushed", "ps/monitoring/run_reports.py", "            self._run.traces.sync()  # first", "            pass  # first"),
    Mutant("workers are admitted before the generation begins", "ps/coordinator/job.py", "return self.begun and self.shards.joined", "return self.shards.joined"),
    Mutant("records of a lost shard wait for ever", "ps/trace/files.py", "for each, waiting in self._waiting.items():", "for each, waiting in [(shard, self._waiting.get(shard, bytearray()))]:"),
    Mutant("a worker that leaves an absent server is interrupted", "worker/train/loop.py", "            with suppress(Stopped):  # a signal", "            with suppress(EOFError):  # a signal"),
    Mutant("initial weights are sent before a shard voids others", "ps/coordinator/coordinator.py", " and job.shards.may_be_initialised", ""),
    Mutant("changes of the settings are not flushed when they are made", "ps/control_plane/checkpointer.py", "self._note_changes(durable=True)  # a torn", "self._note_changes()  # a torn"),
    Mutant("a change of the mode releases the old weights", "ps/core/shard.py", "if not compensation.corrects:  # otherwise", "if True:  # otherwise"),
    Mutant("an upload is not repeated", "worker/exchange/coordinator_client.py", "        self._call(send, None, self._timeout_s + size_bytes / 1e6)", "        try:\n            send(None, self._timeout_s + size_bytes / 1e6)\n        except grpc.RpcError as failure:\n            raise error_of(failure, self.address) from failure"),
)  # fmt: skip
