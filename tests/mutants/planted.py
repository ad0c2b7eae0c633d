"""Faults that a person could make, and the tests that must notice each; see scripts/mutants.sh.

A fault names a piece of a file that stands there once, and what takes its place.
"""

from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parents[1]


class Fault(NamedTuple):
    """A change that breaks a promise."""

    file: str
    name: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.file}: {self.name}"

    def applied(self, text: str) -> str:
        """The text of the file with the fault."""
        assert text.count(self.old) == 1, self.place
        return text.replace(self.old, self.new)


def misfits(root: Path) -> list[str]:
    """What of the list does not fit the package any more, in words."""
    told = []
    for fault in FAULTS:
        text = (root / fault.file).read_text(encoding="utf-8")
        count = text.count(fault.old)
        if count != 1 or fault.old == fault.new:
            told.append(f"{fault.place}: what is to be replaced stands there {count} times: {fault.old!r}")
            continue
        try:
            compile(fault.applied(text), fault.file, "exec")
        except SyntaxError as error:
            told.append(f"{fault.place}: with it, this is no Python: {error}")
        for test in fault.tests:
            file, _, name = test.partition("::")
            if f"\ndef {name.partition('[')[0]}(" not in "\n" + (root / file).read_text(encoding="utf-8"):
                told.append(f"{fault.place}: there is no test {test}")
    if len({fault.place for fault in FAULTS}) < len(FAULTS):
        told.append("two faults have one name")
    return told


def _of(room: str, *faults: tuple[str, str, str, str]) -> list[Fault]:
    """Faults of one room: what each is, old, new, and its tests: `x::y` is test_y in the file test_x.py."""
    return [
        Fault(f"loader/{room}.py", name, old, new, tuple(map(_node, tests.split()))) for name, old, new, tests in faults
    ]


def _node(test: str) -> str:
    file, _, name = test.partition("::")
    (path,) = TESTS.rglob(f"test_{file}.py")
    return f"tests/{path.relative_to(TESTS)}::test_{name}"


FAULTS = [
    *_of(
        "pipeline/pool",
        (
            "a client that other runs may be shut out of is handed on",
            "self.keeps and well and client.fences.is_unused",
            "self.keeps and well",
            "side_by_side::only_clean_connections_are_handed_on",
        ),
        (
            "a client whose job has not ended well is handed on",
            "self.keeps and well and client.fences.is_unused",
            "self.keeps and client.fences.is_unused",
            "side_by_side::a_client_with_a_lock_that_stays_is_not_handed_on",
        ),
        (
            "each job connects anew",
            "connection: Connection = kept.pop()[1]",
            "connection = Connection(settings, patience)",
            "side_by_side::only_clean_connections_are_handed_on",
        ),
    ),
    *_of(
        "redis/spares",
        (
            "a closed connection is used",
            "        if is_quiet(connection):\n            live",
            "        if True:\n            live",
            "side_by_side::a_connection_that_was_closed_meanwhile_is_not_used",
        ),
    ),
    *_of(
        "jobs/together",
        (
            "runs come as they end",
            "while wanted and wanted[0].name in found:\n                yield found.pop(wanted.popleft().name)",
            "yield found.pop(name)",
            "side_by_side::runs_come_in_the_order_of_the_jobs",
        ),
        (
            "jobs of one prefix run at once",
            "chains.setdefault(job.prefix, deque())",
            "chains.setdefault(job.name, deque())",
            "side_by_side::jobs_of_one_prefix_run_one_after_the_other",
        ),
        (
            "a signal is heard of by nobody",
            "self._options.halt.asked = self._options.halt.now = True",
            "pass",
            "side_by_side::a_signal_stops_jobs_that_run_at_once",
        ),
    ),
    *_of(
        "jobs/turns",
        (
            "a pause is not waited for",
            "            time.sleep(max(0.0, due - time.monotonic()))\n",
            "",
            "turns::jobs_wait_for_their_looks_together",
        ),
        (
            "each job waits for itself",
            "if self._waiting and (self._turns.are_due or not self._fresh or self._kept > recheck.PENDING):",
            "if self._waiting:",
            "turns::jobs_wait_for_their_looks_together",
        ),
        (
            "keys of all jobs are kept, however many",
            " or self._kept > recheck.PENDING",
            "",
            "turns::few_keys_are_kept_in_all",
        ),
        (
            "a job stays locked in a pause",
            "        self.session.check()\n        self.__exit__(None)\n",
            "        self.session.check()\n",
            "turns::differences_are_repaired_after_shared_pauses",
        ),
        (
            "what was written before a pause is not checked",
            "        self.session.check()\n        self.__exit__(None)\n",
            "        self.__exit__(None)\n",
            "turns::a_master_that_was_emptied_before_a_pause",
        ),
        (
            "a job that is locked in the pause is given up",
            "if error.kind is not Kind.LOCKED or not left:",
            "if error.kind is not Kind.LOCKED or left:",
            "turns::a_job_that_is_locked_in_the_pause_is_tried_again",
        ),
        (
            "each job waits for a server that is away",
            "again=self._job.origin.source not in self._turns.away",
            "again=True",
            "turns::a_source_that_dies_in_the_pause_fails_its_jobs_alone",
        ),
        (
            "nobody goes on amid a long job",
            "        if self._turns.are_due:\n",
            "        if False:\n",
            "turns::jobs_that_wait_go_on_amid_a_long_one",
        ),
        (
            "what has ended is lost with a signal",
            "                yield from works.broken_off(error)\n",
            "",
            "turns::a_signal_in_the_pause turns::a_command_that_is_stopped_in_a_pause_tells_what_it_has",
        ),
        (
            "results come as they end",
            "yield from works.ended()",
            "yield from works.broken_off(ValueError())",
            "turns::documents_come_in_the_order_of_the_jobs",
        ),
    ),
    *_of(
        "report/progress",
        (
            "a bar stays while others go on",
            "        self.rest()\n        self._drawing = False\n",
            "        self._drawing = False\n",
            "bar::a_bar_rests_while_others_go_on",
        ),
    ),
    *_of(
        "jobs/recheck",
        (
            "a key is looked at again before its pause is over",
            "        sleep(due - time.monotonic())\n",
            "",
            "turns::a_single_job_stays_open_and_locked_in_its_pauses",
        ),
        (
            "all keys are due with the first",
            "max((due for due",
            "min((due for due",
            "turns::each_key_waits_for_its_whole_pause",
        ),
    ),
    *_of(
        "jobs/orphans",
        (
            "a key that a changed table does not make has no row",
            "list(filter(rows.session.lookup.owns, keys)))",
            "keys)",
            "turns::a_key_that_a_changed_table_does_not_make_stays",
        ),
        (
            "keys that were found are looked for in Redis once more",
            "        if self._own is None:\n",
            "        if True:\n",
            "turns::a_row_that_comes_back_in_the_pause_keeps_its_hash",
        ),
    ),
    *_of(
        "jobs/prune",
        (
            "a prune that falls due in the pause is settled",
            " and visits.is_first:",
            ":",
            "turns::a_prune_that_falls_due_in_the_pause_stays_due",
        ),
    ),
    *_of(
        "jobs/shared_scan",
        (
            "a key is handed to the first job",
            "owners.get(key[:size], ())",
            "next(iter(owners.values()))",
            "side_by_side::several_jobs_are_compared_over_one_scan",
        ),
    ),
    *_of(
        "jobs/pace",
        (
            "a run that began late is in time",
            "max(run.began - run.slot, took[name]) > seconds",
            "took[name] > seconds",
            "side_by_side::doctor_says_which_schedules_are_not_kept",
        ),
    ),
    *_of(
        "web/backlog",
        (
            "schedules that are not kept are told of again and again",
            "            self._told = True\n",
            "",
            "backlog::it_is_told_once",
        ),
        (
            "a late run counts as one in time",
            "if due > self._missed.get(run.job, due):",
            "if run.job in self._missed:",
            "backlog::behind_until_a_due_time_is_done_before_the_next",
        ),
    ),
    *_of(
        "model",
        (
            "text after a literal goes through",
            "LITERAL.fullmatch(value)",
            "LITERAL.match(value)",
            "plan::literals_hold_no_free_text",
        ),
    ),
    *_of(
        "pipeline/deleter",
        (
            "hashes of another job go",
            "owned = sorted(filter(self._lookup.owns, keys))",
            "owned = sorted(keys)",
            "increment::the_key_of_another_job_is_not_deleted",
        ),
        (
            "keys of another type go",
            'if kind == b"hash"]',
            'if kind != b"none"]',
            "increment::a_foreign_key_is_not_deleted",
        ),
        (
            "the row is not looked up right before",
            "made = made_of(there, self._made, self._lookup, source, self._target, self._throttle)",
            "made = set[bytes]()",
            "increment::a_key_that_another_row_makes_stays",
        ),
        (
            "what a cut result lacks is gone",
            "if count != str(read):",
            "if not count:",
            "session::a_result_that_is_cut_deletes_nothing",
        ),
        (
            "the lock may have lapsed since the row was looked up",
            "            self._throttle.hold(grant)\n",
            "",
            "increment::a_deletion_that_the_lock_does_not_cover",
        ),
        (
            "what stays is forgotten",
            "            stay += (key for key in there if key in made)\n",
            "",
            "changed::a_row_that_comes_back_before_its_hash_is_deleted",
        ),
    ),
    *_of(
        "jobs/verify",
        (
            "a repair takes no lock",
            'return JobSession(settings, job, new_id() if repair else "", pool=pool, again=again)',
            'return JobSession(settings, job, "", pool=pool, again=again)',
            "lock::x1_two_runs_of_a_job",
        ),
        (
            "a repair has no limit",
            "        if extra > most:\n",
            "        if extra > self.verdict.rows + extra:\n",
            "reconcile::a_table_that_is_empty_by_mistake_empties_nothing",
        ),
        (
            "a repair leaves the baseline",
            "        if self._repair:\n            void_baseline(session)\n",
            "",
            "changed::others_that_write_hashes_void_what_is_known",
        ),
    ),
    *_of(
        "jobs/prune",
        (
            "--max-delete is no percentage",
            "if done.extra > done.keys * max_delete / 100:",
            "if done.extra > done.keys * max_delete:",
            "reconcile::a_table_that_is_empty_by_mistake_empties_nothing",
        ),
        (
            "a dry run deletes",
            "elif done.extra and not done.dry_run:",
            "elif done.extra:",
            "reconcile::hashes_without_a_row_are_pruned",
        ),
        (
            "more is deleted than is allowed",
            "part = keys[: most - done.deleted]",
            "part = keys",
            "reconcile::no_more_is_deleted_than_is_allowed",
        ),
        (
            "a prune leaves the baseline",
            "        void_baseline(session)\n        rows, ",
            "        rows, ",
            "changed::others_that_write_hashes_void_what_is_known",
        ),
        (
            "keys of a scan that failed count",
            "scanned, done.keys = SlotChecksums(), 0",
            "scanned = SlotChecksums()",
            "reconcile::a_master_that_fails_amid_a_scan",
        ),
        (
            "a prune that is through is still due",
            "if job.full_every and not done.dry_run and visits.is_first:",
            "if job.full_every and done.dry_run and visits.is_first:",
            "increment::a_full_run_is_due",
        ),
    ),
    *_of(
        "jobs/rejects",
        (
            "a retry leaves the baseline",
            "        void_baseline(session)\n        rows = ",
            "        rows = ",
            "changed::others_that_write_hashes_void_what_is_known",
        ),
        (
            "a row that is refused again is forgotten",
            "rejects.remove([key for key in part if key not in refused])",
            "rejects.remove(part)",
            "reconcile::rejects_are_listed_retried_and_forgotten",
        ),
    ),
    *_of(
        "jobs/session",
        (
            "jobs may share a prefix",
            "if other := settings.sharing(job):",
            "if (other := settings.sharing(job)) and other.table != job.table:",
            "reconcile::jobs_that_write_the_same_hashes_are_refused",
        ),
    ),
    *_of(
        "redis/migrations",
        (
            "keys on the node that takes a slot do not count",
            "return owner == node or Move(slot, owner, node) in self.moves",
            "return owner == node",
            "moves::what_has_moved_already_is_compared_and_pruned",
        ),
        (
            "a slot that was away and is back has not moved",
            "titles[first : last + 1] = [(node, each.epoch)]",
            "titles[first : last + 1] = [(node, 0)]",
            "moves::a_key_that_moves_while_keys_are_looked_for",
        ),
    ),
    *_of(
        "mysql/sample",
        (
            "a share that gave nothing is enough",
            "if parts == 1 or seen() * 2 >= count:",
            "if parts >= 1:",
            "reconcile::a_sample_is_drawn_from_the_rows_that_the_job_takes",
        ),
        (
            "the rest of each span is not looked at where rows are rare",
            "behind = [(end, start - 1) for start, end in zip(starts, ends[:-1], strict=True) if start > end]",
            "behind = list[tuple[int, int]]()",
            "reconcile::a_sample_is_drawn_from_the_rows_that_the_job_takes",
        ),
    ),
    *_of(
        "cli/init/hints",
        (
            "a word that holds the name of a secret is one",
            r'r"|iban|card|card_?(?:no|num|number)|cvv|cvc|otp|pin)(?:_|$)"',
            r'r"|iban|card|card_?(?:no|num|number)|cvv|cvc|otp|pin)"',
            "init_many::names_of_other_things",
        ),
    ),
    *_of(
        "cli/init/many_tables",
        (
            "a table without a key is like the others",
            '"no primary key": not table.primary_key,',
            '"no primary key": False,',
            "init_many::one_job_for_tables_that_are_alike",
        ),
        (
            "what has a job of its own is in the job of many tables too",
            "zip(wanted, oddities, strict=True) if oddity and patterns}",
            "zip(wanted, oddities, strict=True) if False}",
            "init_many::one_job_for_tables_that_are_alike",
        ),
    ),
    *_of(
        "cli/init/update",
        (
            "each shard gets a job of its own for a new table",
            "groups = [tuple(names) for names in together.values() if len(names) > 1]",
            "groups = [tuple(names) for names in together.values() if len(names) > 99]",
            "many::new_tables_of_each_source_are_added",
        ),
        (
            "what is commented out is added again",
            "found = name.lower() in tables or scalar(table_text(name)) in commented",
            "found = name.lower() in tables",
            "init_many::update",
        ),
        (
            "jobs are added behind the comments of the next part",
            'while not lines[end - 1].strip() or lines[end - 1].startswith("#"):',
            "while not lines[end - 1].strip():",
            "init_many::update",
        ),
    ),
    *_of(
        "mysql/schema",
        (
            "a table that may not be read is taken for one without columns",
            "together = all(name in kinds for name in some) and _all_readable(connection, some)",
            "together = True",
            "init_many::tables_that_may_not_be_read",
        ),
    ),
    *_of(
        "config/load",
        (
            "a job that deletes may share its prefix with the second of two",
            "            self.odd = self.odd or job\n",
            "",
            "config::jobs_are_held_against_each_other_as_if_each_with_each",
        ),
    ),
    *_of(
        "pipeline/incremental",
        (
            "the lag is not taken off",
            "before.at - setting(job).lag - set_back(before, now)",
            "before.at - set_back(before, now)",
            "increment::x7_a_late_commit_within_the_lag",
        ),
        (
            "a clock that was set back is not noticed",
            "before.at - setting(job).lag - set_back(before, now)",
            "before.at - setting(job).lag",
            "increment::x10_a_clock_set_back",
        ),
        (
            "open transactions do not count",
            "limit = seconds - (age or 0)",
            "limit = seconds",
            "increment::x7_a_commit_later_than_the_lag",
        ),
        (
            "stamps of another time zone do not hold the mark back",
            "return Watermark(min(last, limit), last,",
            "return Watermark(limit, last,",
            "increment::x10_stamps_in_another_time_zone",
        ),
        (
            "a replica may have stood still",
            "mark = mark if source.is_read_only() else _advanced(before, mark)",
            "mark = _advanced(before, mark)",
            "increment::a_replica_that_stood_still",
        ),
        (
            "a doubtful baseline is built on",
            "    if doubt or before is None:\n",
            "    if before is None:\n",
            "increment::a_master_that_was_emptied increment::a_changed_plan",
        ),
        (
            "a full run comes late",
            "not 0 <= now - baseline.full < job.full_every * EARLY",
            "not 0 <= now - baseline.full < job.full_every",
            "increment::a_full_run_is_due",
        ),
        (
            "the mark of a quiet table creeps",
            "return before if passed < ADVANCE else replace(",
            "return replace(",
            "increment::runs_every_second",
        ),
        (
            "rows with an older mark of the same stamp are passed by",
            "    if now.newest != before.newest or set_back(before, now):\n",
            "    if set_back(before, now):\n",
            "increment::only_what_was_changed_is_read increment::x10_stamps_in_another_time_zone",
        ),
    ),
    *_of(
        "daemon/alarms",
        (
            "an alarm that was changed rings all the same",
            "if number == self._number:",
            "if number <= self._number:",
            "alarms::an_alarm_that_was_handed_over_does_not_ring_if_it_is_changed_first",
        ),
        (
            "the clock shows that it works before it does",
            "        self._probe.set(time.time())\n",
            "        self._probe.set(time.time())\n        self._turn()\n",
            "alarms::the_clock_shows_that_it_works",
        ),
    ),
    *_of(
        "daemon/listeners",
        (
            "a fault in the telling stops a job",
            '    except Exception:\n        LOG.exception("a listener',
            '    except OSError:\n        LOG.exception("a listener',
            "schedule::a_listener_that_fails_harms_no_job",
        ),
    ),
    *_of(
        "daemon/places",
        (
            "places are not counted",
            "while self._waiting and self._running < self.at_once and",
            "while self._waiting and",
            "schedule::no_job_overlaps_itself_and_no_more_run_than_have_places",
        ),
    ),
    *_of(
        "daemon/timer",
        (
            "a clock set back is not noticed",
            "if went_back := now < self._seen - BACK:",
            "if went_back := now < self._seen - 1e9:",
            "schedule::the_clock_set_back_does_not_stall_a_job",
        ),
        (
            "the clock that is shared is followed once",
            "or abs(shift - self._shift) > DRIFT):",
            "):",
            "schedule::slots_come_by_the_clock_that_is_shared",
        ),
        (
            "a pause grows by as much as the clock is set",
            "        if self._retry.at is not None:\n",
            "        if self._retry.at is None:\n",
            "schedule::the_pause_of_an_attempt_stands_a_clock_that_is_set",
        ),
    ),
    *_of(
        "daemon/schedule",
        (
            "a job runs beside itself",
            "        if self._is_busy(entry.name) and not manual:\n            self._skip(",
            "        if not manual and entry.name in self._by_hand:\n            self._skip(",
            "schedule::no_job_overlaps_itself_and_no_more_run_than_have_places",
        ),
        (
            "pauses do not grow",
            "min(BACKOFF_MOST, least * 2 ** min(entry.failures, 9))",
            "min(BACKOFF_MOST, least)",
            "schedule::a_failed_run_is_tried_again_and_what_crashes_is_told",
        ),
        (
            "a slot that is tried again is not settled by the next",
            "        self._settle(entry, Reason.RUNNING)\n        entry.timer.forget",
            "        entry.timer.forget",
            "schedule::a_new_slot_settles_the_one_that_is_still_locked_elsewhere",
        ),
        (
            "slots come by this machine's clock",
            "due = entry.timer.take(self._clock(name))",
            "due = entry.timer.take(time.time())",
            "schedule::slots_come_by_the_clock_that_is_shared",
        ),
        (
            "a slot that comes amid work by hand is dropped",
            "            manual.delays, entry.again = entry, last\n",
            "            self._settle(entry, Reason.RUNNING)\n",
            "schedule::a_slot_that_comes_amid_work_by_hand_is_done_once_after_it",
        ),
        (
            "a run whose job was taken out is forgotten",
            "            self._dropped.add(entry)\n",
            "            pass\n",
            "schedule::a_job_taken_out_while_it_runs_is_not_begun_beside_itself",
        ),
        (
            "an attempt that met a run by hand is lost",
            "if entry and self._entries",
            "if not entry and self._entries",
            "schedule::an_attempt_that_meets_a_run_by_hand_comes_later",
        ),
        (
            "a paused slot counts as run",
            ", Kind.PAUSED: Reason.PAUSED}",
            "}",
            "schedule::a_slot_of_a_paused_job_is_settled_and_not_tried_again",
        ),
        (
            "work by hand is taken after the stop",
            "if self._stopping or self._is_busy(name):",
            "if self._is_busy(name):",
            "schedule::by_hand_a_job_has_a_place_and_never_runs_beside_itself",
        ),
    ),
    *_of(
        "mysql/forms",
        (
            "zeros before a number do not matter",
            'return rb"[0-9]{%d}|[1-9][0-9]{%d,}" % (width, width)',
            'return rb"[0-9]+"',
            "reconcile::keys_of_others_are_left_alone",
        ),
        (
            "bytes that are no text are looked up",
            "always UTF-8\n            return False",
            "always UTF-8\n            return True",
            "reconcile::a_key_that_is_no_text_is_left_alone",
        ),
        (
            "a text may be longer than its column",
            "(size is None or len(signs) <= size) and not (is_padded",
            "not (is_padded",
            "reconcile::a_hash_under_a_key_of_text_has_to_show_whose_it_is",
        ),
        (
            "members count in any order",
            "return min(ranks) >= 0 and all(before < after for before, after in pairwise(ranks))",
            "return min(ranks) >= 0",
            "lookup::texts_that_a_column_may_have",
        ),
        (
            "a number of one sign may hold the other",
            'DIGITS if "unsigned" in column.full_type else DIGITS + b"-"',
            'DIGITS + b"-"',
            "plan::columns_that_can_be_told_apart",
        ),
    ),
    *_of(
        "mysql/sql",
        (
            "texts of several character sets are joined as they are",
            "text_of(column) if mixed and column in texts else quote(column.name)",
            "quote(column.name)",
            "reconcile::character_sets_that_do_not_mix",
        ),
    ),
    *_of(
        "mysql/planner",
        (
            "what is computed is no part of the plan",
            " or column.name.lower() in computed",
            "",
            "plan::what_is_computed_is_part_of_the_plan",
        ),
    ),
    *_of(
        "mysql/catalog",
        (
            "members of an ENUM have no letter case",
            "        full_type=str(full),\n",
            "        full_type=str(full).lower(),\n",
            "increment::a_member_that_is_spelled_otherwise",
        ),
        (
            "a query's bytes are text",
            "if field.charsetnr == BINARY_CHARSET:",
            "if False:",
            "reconcile::a_query_says_what_its_keys_look_like",
        ),
        (
            "a query's numbers are anything",
            'kind, digits = RESULT_TYPES.get(field.type_code, UNKNOWN), ""',
            'kind, digits = "varchar", ""',
            "reconcile::a_query_says_what_its_keys_look_like",
        ),
    ),
    *_of(
        "jobs/rows",
        (
            "a hash of someone else goes",
            "own = hashes if self._lookup.is_certain else self._proven(sorted(hashes))",
            "own = hashes",
            "reconcile::a_hash_under_a_key_of_text_has_to_show_whose_it_is",
        ),
    ),
    *_of(
        "jobs/prune",
        (
            "hashes of others allow more to be deleted",
            "done.keys -= len(orphans.unsure) + orphans.others",
            "pass",
            "reconcile::keys_of_others_are_left_alone",
        ),
    ),
    *_of(
        "mysql/joint",
        (
            "members that hold the separator are told apart",
            "return is_prefix_free([member + separator for member in members])",
            "return True",
            "plan::columns_that_can_be_told_apart",
        ),
        (
            "hexadecimal is any text",
            "signs = HEXED if is_hexed else signs_of(column)",
            "signs = signs_of(column)",
            "plan::columns_that_can_be_told_apart",
        ),
    ),
    *_of(
        "mysql/keys",
        (
            "a hash of other fields is ours",
            "if not all(name in names for name in found) or not (self._begins or any(self._shown)):",
            "if not (self._begins or any(self._shown)):",
            "reconcile::a_hash_under_a_key_of_text_has_to_show_whose_it_is",
        ),
        (
            "a hash that says nothing of its key is ours",
            "or not (self._begins or any(self._shown)):",
            "or not True:",
            "reconcile::a_key_that_says_nothing_of_whose_it_is",
        ),
        (
            "what a hash says of its key does not matter",
            "if None in values or len(values) > 1:",
            "fields = []\n            if False:",
            "reconcile::a_hash_under_a_key_of_text_has_to_show_whose_it_is",
        ),
        (
            "any key that fits is ours",
            "return self._begins and not any(map(is_any, self._columns))",
            "return True",
            "reconcile::a_hash_under_a_key_of_text_has_to_show_whose_it_is",
        ),
        (
            "rows of a followed key of several columns are read whether they are the job's or not",
            'return f"({self._alternatives(values)})"',
            "return self._alternatives(values)",
            "follow_query::many_jobs_of_one_table",
        ),
        (
            "the parts of a key are not looked at",
            "if not check(match[place]):",
            "if False:",
            "lookup::each_part_of_a_key_is_looked_at",
        ),
        (
            "longer prefixes of other jobs are ours",
            "(RESERVED, *self._others)",
            "(RESERVED,)",
            "reconcile::a_job_with_a_longer_prefix_keeps_its_keys",
        ),
        (
            "the loader's own keys are ours",
            "(RESERVED, *self._others)",
            "self._others",
            "reconcile::the_loaders_own_keys_are_left_alone",
        ),
        (
            "a key with too many readings is looked up by some",
            "if len(found) > READINGS:\n                whole",
            "if len(found) > READINGS + 1:\n                whole",
            "reconcile::texts_full_of_separators",
        ),
        (
            "a prefix is a pattern",
            '    return re.sub(r"([*?\\[\\]\\\\^-])", r"\\\\\\1", text)',
            "    return text",
            "reconcile::a_prefix_that_looks_like_a_pattern",
        ),
    ),
    *_of(
        "pipeline/load_guard",
        (
            "a load above the limit is not waited for",
            'if value > most else ""',
            'if value < most else ""',
            "backfill::a_run_waits_while_mysql_is_busy",
        ),
        (
            "a replica that stands still is not waited for",
            'return f"--max-lag {most}: the replica does not replicate"',
            'return ""',
            "backfill::a_run_waits_for_the_replica",
        ),
    ),
    *_of(
        "pipeline/capacity",
        (
            "rows that are there need room",
            "new = [words for words in rows if words[1] not in there]",
            "new = rows",
            "backfill::a_backfill_that_cannot_fit_does_not_begin",
        ),
        (
            "a backfill that cannot fit begins",
            "if need > rooms.get(node, need):",
            "if need < rooms.get(node, 0):",
            "backfill::a_backfill_that_cannot_fit_does_not_begin",
        ),
    ),
    *_of(
        "mysql/stream",
        (
            "an error amid rows ends the result well",
            "            self._source.close()\n            raise\n",
            "            self._source.close()\n",
            "faults_mysql::s3_killed_amid_rows faults_mysql::s3_out_of_time",
        ),
        (
            "a stream that is left is read to its end",
            "        if not self._finished:\n            self._hand_back",
            "        if self._finished:\n            self._hand_back",
            "sync::a_stream_left_early_drops_its_connection",
        ),
        (
            "a server that closes amid rows is no failure that passes",
            'closed the connection while sending {self._what}",\n                kind=Kind.UNAVAILABLE',
            'closed the connection while sending {self._what}",\n                kind=Kind.FAULT',
            "sync::a_server_that_closes_amid_rows",
        ),
    ),
    *_of(
        "mysql/catalog",
        (
            "each run asks for the time zone of its session",
            "    if not connection.zone:",
            "    if connection.zone is not None:",
            "side_by_side::a_run_of_a_small_table_asks_little_of_mysql",
        ),
        (
            "an emptied table is the same",
            'name LIKE %s ORDER BY table_id",',
            'name LIKE %s ORDER BY table_id LIMIT 0",',
            "increment::another_table_of_the_name",
        ),
    ),
    *_of(
        "mysql/connection",
        (
            "a session is not what was set",
            "[each for each in self.astray() if each.variable.vital]",
            "[each for each in self.astray() if each is None]",
            "session::what_is_not_kept_is_noticed",
        ),
        (
            "a connection that could not be opened again is used",
            "if self._is_lost or (wire",
            "if (wire",
            "session::a_server_that_is_away_when_its_connection_is_opened_again",
        ),
        (
            "an idle connection that the server has ended is used",
            "connection.open and wire.is_over()):",
            "not connection.open):",
            "session::a_connection_that_the_server_ends_while_it_is_idle",
        ),
    ),
    *_of(
        "mysql/transactions",
        (
            "a transaction that has only locked does not count",
            "trx_rows_modified > 0 OR trx_lock_structs > 0",
            "trx_rows_modified > 0",
            "increment::open_transactions_without_the_right",
        ),
        (
            "an old answer about transactions is believed",
            'if seen == "1":',
            'if seen != "2":',
            "increment::an_old_answer_about_transactions",
        ),
        (
            "a statement that holds no lock yet does not count",
            "return max(0, running, int(age or 0))",
            "return max(0, int(age or 0))",
            "increment::x7_a_statement_that_waits increment::x7_statements_that_compute_before_they_write",
        ),
    ),
    *_of(
        "mysql/session",
        (
            "the time zone is not set",
            "values = {ZONE: zone,",
            "values = {ZONE: None,",
            "increment::x10_a_moment_by_the_clock",
        ),
        (
            "the session may write",
            'Variable("tx_read_only", "1",',
            'Variable("tx_read_only", "0",',
            "sync::a_session_may_not_write",
        ),
        (
            "results may be cut",
            '    Variable("sql_select_limit", ALL, CUT),\n',
            "",
            "session::a6_no_global_changes_a_result",
        ),
        (
            "rows may be those of the past",
            'Variable("system_versioning_asof", SYSTEM,',
            'Variable("system_versioning_asof", "2001-01-01 00:00:00.000000",',
            "session::a6_no_global_changes_a_result",
        ),
    ),
    *_of(
        "mysql/write_statements",
        (
            "a function of one's own is taken to read",
            "if not known and (",
            "if not known and False and (",
            "write_statements::all_else_may_write",
        ),
        (
            "a statement within a function is taken for a query of its own",
            'if token.word == "into" and (after is None or after.word not in FILES):',
            "if False:",
            "write_statements::all_else_may_write increment::x7_statements_that_compute_before_they_write",
        ),
    ),
    *_of(
        "mysql/sql",
        (
            "the upper bound is not part of a chunk",
            "_compare(columns, values, '<', '<=')",
            "_compare(columns, values, '<', '<')",
            "plan::chunks_are_ranges_of_the_key",
        ),
        (
            "the hour that comes twice is read once",
            "FROM_UNIXTIME(IF({steady}, {at}, {low if sign == '>=' else high}))",
            "FROM_UNIXTIME({at})",
            "increment::x10_the_hour_that_comes_twice",
        ),
    ),
    *_of(
        "mysql/sql",
        (
            "a backquote ends a name",
            'return "`" + name.replace("`", "``") + "`"',
            'return "`" + name + "`"',
            "plan::names_are_quoted",
        ),
    ),
    *_of(
        "mysql/plan",
        (
            "a row whose condition is NULL keeps its hash",
            'f"({taken}) IS NOT TRUE"',
            'f"NOT ({taken})"',
            "increment::a_row_that_leaves_the_where",
        ),
        (
            "a checkpoint is not bound to types",
            '            "column types": ", ".join(f"{column.name} {column}" for column in self.columns),\n',
            "",
            "backfill::a_changed_column_is_refused",
        ),
        (
            "what was changed is another plan",
            "        if self.whole:\n            return self.whole.facts()\n",
            "",
            "increment::only_what_was_changed_is_read",
        ),
        (
            "a type that changed is not seen in the result",
            "for before, now in pairs if before != now)",
            "for before, now in pairs if before[0] != now[0])",
            "faults_mysql::s12_a_type_is_shared_by_all_workers",
        ),
        (
            "a key of a named source has no columns",
            " with_primary_key(parts, table.primary_key)] if parts else table.primary_key",
            " with_primary_key((), table.primary_key)] if parts else table.primary_key",
            "plan::a_key_of_a_named_source_follows_the_primary_key_only_if_it_names_it",
        ),
    ),
    *_of(
        "mysql/planner",
        (
            "shards overlap",
            "% {shard[1]} = {shard[0] - 1}",
            "% {shard[1]} >= {shard[0] - 1}",
            "backfill::shards_divide_the_table",
        ),
    ),
    *_of(
        "mysql/chunker",
        (
            "the rest beyond the last bound is left out",
            "        at += rows\n        yield (str(at),)\n    yield None\n",
            "        at += rows\n        yield (str(at),)\n",
            "chunker::every_row_is_in_exactly_one_chunk",
        ),
        (
            "the first chunk is too large",
            "else low - 1\n",
            "else low\n",
            "chunker::a_dense_integer_key_is_counted_off",
        ),
        (
            "a condition is taken for rows that are there",
            "not in INTEGERS or plan.filtered:",
            "not in INTEGERS:",
            "chunker::a_table_that_is_filtered_is_not_counted_off",
        ),
    ),
    *_of(
        "state/history",
        (
            "a run of a part is a success of all",
            "self.status.is_success and not self.partial",
            "self.status.is_success",
            "watch::a_part_is_no_success",
        ),
        (
            "a failed run is a success",
            "self.status.is_success and not self.partial",
            "not self.partial",
            "watch::stopped_and_bounded",
        ),
        (
            "the list grows",
            "if count > ARGV[3] + 1 then redis.call('LTRIM', KEYS[1], 0, ARGV[3]) end\n",
            "",
            "watch::stopped_and_bounded",
        ),
    ),
    *_of(
        "web/auth",
        (
            "guesses cost no wait",
            "if not self._token or now < before.until:",
            "if not self._token:",
            "auth::guesses_are_slowed_down",
        ),
        (
            "the beginning of the token is enough",
            'if hmac.compare_digest(token.encode(errors="surrogateescape"), self._token):',
            'if self._token.startswith(token.encode(errors="surrogateescape")):',
            "auth::a_part_of_the_token_is_not_enough",
        ),
        (
            "sessions outlive their token",
            "                self._sessions.clear()\n",
            "",
            "auth::sessions",
        ),
        (
            "a page of the same site counts as ours",
            'site not in {"same-origin", "none"}',
            'site not in {"same-origin", "same-site", "none"}',
            "auth::pages_of_others",
        ),
        (
            "two slashes lead on",
            'r"/(?!/)[!-\\[\\]-~]*"',
            'r"/[!-\\[\\]-~]*"',
            "auth::ways_astray",
        ),
    ),
    *_of(
        "doctor/shown",
        (
            "what is right is shown",
            "elif finding.level is not Level.OK:\n            of_jobs",
            "else:\n            of_jobs",
            "doctor::what_is_right_is_counted",
        ),
        (
            "each job's fault is told by itself",
            "if len(kinds) > SPELLED:",
            "if len(kinds) > 1_000_000:",
            "doctor::jobs_with_the_same_fault_are_told_together",
        ),
        (
            "checks that need a server that is away are told one by one",
            "if finding.lacking:\n            continue",
            "if finding.lacking and everything:\n            continue",
            "doctor::checks_that_a_server_keeps_from_being_made_are_one_line",
        ),
    ),
    *_of(
        "doctor/redis",
        (
            "a wrong password is mended on the server",
            "    if is_login(error):\n        account",
            "    if False:\n        account",
            "doctor::passwords_are_wrong",
        ),
    ),
    *_of(
        "pipeline/throttle",
        (
            "rows of a try that failed count twice",
            "self.rows -= counted if again else 0",
            "self.rows -= 0",
            "throttle::rows_of_an_attempt_that_failed_count_once",
        ),
        (
            "the reason of a chunk hides that of its run",
            "return self.trouble or chunk or self.reason",
            "return chunk or self.trouble or self.reason",
            "progress::the_newest_reason_is_shown",
        ),
    ),
    *_of(
        "report/progress",
        (
            "each chunk and each try has its line",
            'if self._style.level == "debug" or event.reason not in self._reasons:',
            "if event.reason:",
            "progress::a_reason_is_told_once",
        ),
        (
            "a chunk that is lost is counted all the same",
            "self._rows -= event.event.read",
            "self._rows -= 0",
            "progress::rows_that_are_lost_do_not_count",
        ),
    ),
    *_of(
        "web/activity",
        (
            "the page counts a chunk that is lost",
            "            going.take_back(event.event)\n",
            "",
            "activity::a_chunk_that_is_lost",
        ),
    ),
    *_of(
        "cli/common",
        (
            "a result that cannot be written does not say what it is",
            'raise OSError(error.errno, f"the result cannot be written: {error.strerror}", "stdout") from error',
            "raise",
            "bad_input::a_full_disk",
        ),
    ),
    *_of(
        "redis/acl",
        (
            "rights are asked for with half a command",
            'asked |= {(right, pattern): [*words, f"{prefix}0", *more]',
            'asked |= {(right, pattern): [*words, f"{prefix}0"]',
            "doctor::rights_are_asked_for_with_whole_commands",
        ),
    ),
    *_of(
        "lab/files",
        (
            "a file that could not be written is in the way of the next lab",
            "            new.unlink(missing_ok=True)\n",
            "            pass\n",
            "bad_input::files_that_cannot_be_written",
        ),
    ),
    *_of(
        "report/screen",
        (
            "lines are as long as in a pipe",
            "    if width is None or width_of(text) <= width:",
            "    if True or width is None or width_of(text) <= width:",
            "screen::fold terminal::everything_fits",
        ),
        (
            "Chinese characters take one column",
            '1 + (east_asian_width(each) in "WF")',
            "1",
            "screen::width",
        ),
    ),
    *_of(
        "report/table",
        (
            "what does not fit is left out",
            "for each in (*table.spilled(cells), *under)]",
            "for each in under]",
            "screen::a_table_on_a_terminal",
        ),
    ),
    *_of(
        "report/console",
        (
            "a run is told as a dictionary",
            'self._run(event) if event["event"] == "run" else self._words(event)',
            "self._words(event)",
            "console::the_end_of_a_run terminal::a_log_for_people",
        ),
    ),
    *_of(
        "cli/run",
        (
            "a failure is told in the log and after it",
            "if run.status is Status.FAILED and run.id not in self._shown.told:",
            "if run.status is Status.FAILED:",
            "terminal::an_error_is_told_once",
        ),
        (
            "nobody is told how to resume",
            "    if is_unfinished:",
            "    if False:",
            "terminal::a_backfill_is_stopped_and_resumed",
        ),
    ),
    *_of(
        "cli/main",
        (
            "a command that fails has no document",
            "if wants_document(sys.argv[1:], os.environ):",
            "if False:",
            "terminal::failures_have_a_document bad_input::usage",
        ),
        (
            "colours are shown whatever NO_COLOR says",
            'not no_color and not os.environ.get("NO_COLOR")',
            "not no_color",
            "terminal::colours",
        ),
    ),
    *_of(
        "redis/servers",
        (
            "slots that nobody serves are counted",
            'for entry in masters.values() if entry["keys"] is not None)',
            "for entry in masters.values())",
            "faults_cluster::an_outage_counts_the_slots_that_are_served",
        ),
    ),
    *_of(
        "doctor/job_state",
        (
            "a source that does not answer makes a job another config's",
            '{"source"} and not kept.is_read',
            '{"source"} and kept.is_read',
            "doctor::a_source_that_does_not_answer_is_no_other_config",
        ),
        (
            "what cannot be read is said to be no date of the future",
            "    elif unread:\n",
            "    elif unread and seen:\n",
            "doctor::what_runs_left",
        ),
    ),
    *_of(
        "doctor/secrets",
        (
            "the variable of a password is not named",
            'return f"is ${variable} right?" if variable else',
            'return f"is ${variable} right?" if False else',
            "doctor::the_variable_of_a_wrong_password_is_named",
        ),
    ),
    *_of(
        "report/text",
        (
            "a tally leaves jobs out",
            'for n, end in [*ends, (left, "not begun")] if n]',
            "for n, end in ends[:1] if n]",
            "cli::several_jobs_end_with_a_tally",
        ),
    ),
    *_of(
        "jobs/status",
        (
            "a paused job is late",
            "late = paused is None and is_late(",
            "late = is_late(",
            "terminal::a_paused_job_is_paused",
        ),
        (
            "a job is failed because a run by hand was",
            "_state(_judged(job, history, last), late=late)",
            "_state(last, late=late)",
            "terminal::a_run_by_hand_fails_for_itself",
        ),
        (
            "each job is asked for by itself",
            "return [job_status(replies, settings.source_of(job), job) for job in jobs]",
            "return [job_status(target, settings.source, job) for job in jobs]",
            "watch::status_of_many_jobs",
        ),
    ),
    *_of(
        "report/status",
        (
            "the summary names nobody",
            "if state in URGENT else",
            "if not state else",
            "watch::status_of_many_jobs",
        ),
    ),
    *_of(
        "cli/verify",
        (
            "an error names no job",
            "of_job(job.name, str(ended), several=len(jobs) > 1)",
            "str(ended)",
            "cli::several_jobs_end_with_a_tally",
        ),
    ),
    *_of(
        "daemon/pauses",
        (
            "a pause is forgotten while redis is away",
            "                self._known[job] = str(paused)\n",
            "",
            "pauses::a_pause_holds_while_redis_is_away",
        ),
    ),
    *_of(
        "web/job_states",
        (
            "a run that has not begun is shown running in an outage",
            "if progress and not (known or progress.loads):",
            "if progress and not known and progress is None:",
            "job_states::what_is_tried_while_redis_is_away_is_no_run",
        ),
        (
            "nobody tells that a job cannot be followed",
            "if unfollowed and known and told.state.is_success:",
            "if unfollowed and not known and told.state.is_success:",
            "job_states::a_job_that_cannot_be_followed_fails",
        ),
    ),
    *_of(
        "web/metrics",
        (
            "nodes that are gone are told of for ever",
            "        self._forget_nodes()\n",
            "",
            "metrics::no_series_grows_without_bound",
        ),
        (
            "a job that is no longer followed falls behind",
            "if self._followed is not None and job not in self._followed:",
            "if self._followed is not None and job in ():",
            "metrics::a_job_that_is_no_longer_followed_is_not_behind",
        ),
    ),
    *_of(
        "jobs/status",
        (
            "a follower is a run in progress",
            "busy = any(not each.yields for each in held)",
            "busy = bool(held)",
            "follow_shown::jobs_that_are_only_followed",
        ),
    ),
    *_of(
        "pipeline/follow",
        (
            "an outage is told of at each attempt",
            "if not self._stopped and before != self._state.unread:",
            "if not self._stopped:",
            "follow_shown::an_outage_of_mysql_is_told_once",
        ),
    ),
    *_of(
        "web/troubles",
        (
            "what follows from a problem counts as one",
            "[each for each in problems if not _follows(each)] or problems",
            "list(problems)",
            "render::a_master_that_is_away_is_one_problem",
        ),
    ),
    *_of(
        "web/listing",
        (
            "an address sorts nothing",
            "        known = sorted((row for row in found if order(row) is not None), key=order",
            "        known = sorted((row for row in found[:0]), key=order",
            "render::an_address_finds_and_sorts",
        ),
    ),
    *_of(
        "web/incidents",
        (
            "each job has its own error",
            'NAMES.sub("…", _text(view, state))',
            "view.status.job",
            "render::an_error_is_said_once",
        ),
    ),
    *_of(
        "web/folding",
        (
            "jobs stand by name",
            "key=lambda row: (row[0], natural(row[1]))",
            "key=lambda row: natural(row[1])",
            "render::what_needs_attention_comes_first",
        ),
        (
            "each part has a line like a job",
            "        if each.part_of:\n",
            "        if not each:\n",
            "render::parts_are_folded_under_their_job",
        ),
    ),
    *_of(
        "web/render",
        (
            "the name of a part is markup",
            "escape(_visible(fold.label(each)))",
            "fold.label(each)",
            "render::parts_with_hostile_names_are_text",
        ),
    ),
    *_of(
        "web/routes",
        (
            "a name with a slash has no page",
            'Route("/jobs/{job:path}", job)',
            'Route("/jobs/{job}", job)',
            "dashboard::pages_of_parts",
        ),
    ),
    *_of(
        "web/poller",
        (
            "what takes long is asked for all the time",
            "min(AGAIN, self._took * REST)",
            "0.0",
            "poller::what_takes_long_is_fetched_less_often",
        ),
    ),
    *_of(
        "web/metrics",
        (
            "details are of each job, however many there are",
            "return job if self._is_detailed else TOGETHER",
            "return job",
            "metrics::many_jobs_are_told_in_little metrics::details_are_of_each_job_while_jobs_are_few",
        ),
        (
            "details of before stay beside those of all jobs",
            "self._forget_details(before - jobs if self._is_detailed else before)",
            "self._forget_details(before - jobs)",
            "metrics::details_are_of_each_job_while_jobs_are_few",
        ),
    ),
    *_of(
        "web/actions",
        (
            "an action needs no session",
            "            if not self._access.has(request.cookies.get(COOKIE)):\n",
            "            if not self._access.exists:\n",
            "actions::a_browser",
        ),
        (
            "a form of another page counts",
            'if not is_own_page(request.headers):\n                return _refused("an action',
            'if not request.headers:\n                return _refused("an action',
            "actions::a_browser",
        ),
        (
            "there are actions without a token",
            "        if not self._access.exists:\n            raise HTTPException(404)\n",
            "        return\n",
            "actions::no_token_no_actions",
        ),
    ),
    *_of(
        "daemon/systemd",
        (
            "a daemon waits for a systemd that does not read",
            "        door.settimeout(PATIENCE)\n",
            "",
            "daemon::systemd_that_does_not_read",
        ),
    ),
    *_of(
        "daemon/service",
        (
            "a reload amid the start is kept back for good",
            "signal.SIG_UNBLOCK",
            "signal.SIG_BLOCK",
            "start_up::a_reload_at_once",
        ),
        (
            "a run elsewhere is not asked about",
            "if any(not each.yields for each in holders(target, job)):\n                    return False\n",
            "holders(target, job)\n",
            "actions::a_program",
        ),
        (
            "chunks under way are broken off at once",
            "        self._halt.asked = True\n",
            "        self._halt.asked = self._halt.now = True\n",
            "daemon::sigterm_lets_chunks_finish_and_the_next_daemon_goes_on",
        ),
        (
            "a broken config is taken",
            '            notify(READY=1, STATUS="the config is broken, the old one is kept")\n            return\n',
            "            os._exit(2)\n",
            "daemon::sighup_and_what_systemd_is_told",
        ),
    ),
    *_of(
        "wire/encoder",
        (
            "a field that became NULL stays",
            "                absent.append(name)\n",
            "                continue\n",
            "frames::null_leaves_the_field_out_and_deletes_it",
        ),
        (
            "a ready-made hash has no time to live",
            "ttl = 0 if layout.ttl is None else 1000 *",
            "ttl = 0 if True else 1000 *",
            "listpack::a_row_is_one_command",
        ),
    ),
    *_of(
        "redis/ready_made",
        (
            "the right to send RESTORE is not looked at",
            'error_text(refusal)) == "NOPERM"',
            'error_text(refusal)) == ""',
            "ready_made::without_the_right",
        ),
        (
            "a node's own limits do not count",
            "USUAL.longest if longest is None else longest",
            "USUAL.longest",
            "ready_made::the_same_hash_as_by_hmset",
        ),
    ),
    *_of(
        "pipeline/transfer",
        (
            "what only looks at commands gets ready-made hashes",
            "layout if writer.restores else",
            "layout if True else",
            "ready_made::a_plan_shows_what_the_hash_is",
        ),
    ),
    *_of(
        "wire/packets",
        (
            "a short row packet is taken",
            "if position != end or len(cells) != count:",
            "if position != end:",
            "frames::a_malformed_packet_is_an_error",
        ),
    ),
    *_of(
        "wire/comparer",
        (
            "the sum of keys depends on nothing but their number",
            "self._sums[slot] = (self._sums[slot] + checksum(key)) & BITS",
            "self._sums[slot] = (self._sums[slot] + 1) & BITS",
            "frames::tallies_tell_slots_apart",
        ),
    ),
    *_of(
        "redis/checker",
        (
            "an error of a node is a hash that differs",
            "        if code not in REDIRECT | DATA:\n            raise self._target.error(text, node)\n",
            "",
            "reconcile::a_node_that_refuses_to_be_read",
        ),
    ),
    *_of(
        "jobs/execute",
        (
            "the prune of a run takes the lock anew",
            "max_delete=most, within=ends)",
            "max_delete=most)",
            "reconcile::a_prune_is_done_under_the_lock_of_its_run",
        ),
    ),
    *_of(
        "pipeline/run",
        (
            "a run that failed is pruned after",
            "        _transfer(context, options, listener, run, again=again)\n",
            (
                "        try:\n            _transfer(context, options, listener, run, again=again)\n"
                "        except LoaderError:\n            then(run, context)\n            raise\n"
            ),
            "reconcile::a_run_that_failed_prunes_nothing",
        ),
    ),
    *_of(
        "pipeline/followed_job",
        (
            "the hash of a row that is gone stays",
            "deleted, _ = self._deleter.erase(gone, source, writer) if gone else (0, [])",
            "deleted = 0",
            "follow::changes_come",
        ),
        (
            "a reject stays listed once it is written",
            "if fixed := (self._rejected & seen) - refused:",
            "if fixed := set():",
            "follow::rejects",
        ),
        (
            "followed rows that a master has lost are not written again",
            "lost = self._ledger.lost(seen)\n",
            "lost = []\n",
            "follow::a_master_loses_writes",
        ),
        (
            "digests vouch for what a follower wrote",
            "        if self.context.plan.job.changed_only:\n",
            "        if False:\n",
            "follow::a_sync_of_what_was_followed",
        ),
        (
            "a new definition of a table is not noticed",
            "        check_table(self.context.plan, source)\n",
            "        pass\n",
            "follow::a_column_is_added",
        ),
        (
            "a new definition of the table of a followed query is not noticed",
            "        self.key.check(source)\n",
            "",
            "follow_query::the_table_is_altered",
        ),
        (
            "as many rows as keys are taken for a row of each key",
            "if not self._is_one_to_one or encoder.rows",
            "if encoder.rows",
            "follow_query::letters_change_their_case",
        ),
    ),
    *_of(
        "mysql/followed_key",
        (
            "a computed key of a query is followed",
            "if key.table != table.name or",
            "if",
            "follow_query::queries_that_cannot_be_followed",
        ),
        (
            "a group of a followed query may take its key from any row",
            "if groups is not None and not any(",
            "if False and not any(",
            "follow_query::queries_that_cannot_be_followed",
        ),
        (
            "columns of the followed table are not of a query's plan",
            "        if not self.is_query:\n            return {}\n",
            "        return {}\n",
            "follow_query::an_enum_is_renamed_while_nobody_follows",
        ),
    ),
    *_of(
        "mysql/outer_query",
        (
            "a followed query may have a LIMIT",
            '    "limit": "LIMIT", "fetch"',
            '    "fetch"',
            "outer_query::unfit",
        ),
        (
            "a followed query may read its table twice",
            "if mentions > 1 else",
            "if mentions > 2 else",
            "outer_query::unfit",
        ),
    ),
    *_of(
        "pipeline/follow",
        (
            "TRUNCATE is nothing to a follower",
            "                if moves_rows:",
            "                if False:",
            "follow::a_table_is_emptied",
        ),
        (
            "another server in the place of the source ends following",
            "        except ServerReplaced as error:\n",
            "        except InterruptedError as error:\n",
            "follow_replica::a_commit_that_nobody_saw",
        ),
        (
            "a prepared transaction keeps a follower from having caught up",
            "is_past(value.told, self._goal)",
            "is_past(self._resume, self._goal)",
            "follow_traps::xa",
        ),
        (
            "rows are read as soon as the binlog tells of them",
            "            self._barrier.wait(source, Committed(",
            "            str(Committed(",
            "barrier::a_commit_that_is_not_visible",
        ),
    ),
    *_of(
        "pipeline/follow",
        (
            "a follower reads rows while MySQL is busy",
            "        if not self._state.held:\n",
            "        if True:\n",
            "follow_shown::it_waits_while_mysql_is_busy",
        ),
    ),
    *_of(
        "mysql/binlog_origin",
        (
            "the files of the binlog after the first are not counted",
            "if number >= here",
            "if number == here",
            "follow_shown::it_waits_while_mysql_is_busy",
        ),
    ),
    *_of(
        "jobs/follow",
        (
            "the server id of a job is not used",
            "        return replica_with(ids[0]) if ids else replica_of(run)\n",
            "        return replica_of(run)\n",
            "follow_shown::the_server_id",
        ),
        (
            "a follower asks MySQL for a job all the time that a run has it",
            "                        self._await_lent()\n",
            "                        time.sleep(ASK_EVERY)\n",
            "follow::a_run_waits_for_the_lock",
        ),
        (
            "a follower ends if Redis is away while a run has its job",
            "                targets.pop().close()\n                raise\n",
            "                raise AssertionError from None\n",
            "follow::a_run_waits_for_the_lock",
        ),
    ),
    *_of(
        "web/app",
        (
            "a followed job without a schedule has no metrics",
            "if job.schedule or job.follow}",
            "if job.schedule}",
            "follow_shown::a_pass_of_the_daemon",
        ),
    ),
    *_of(
        "doctor/binlog",
        (
            "a replica with a follower's server id is not seen",
            "        taken |= {",
            "        unused = {",
            "doctor_binlog::the_server_id",
        ),
    ),
    *_of(
        "state/holders",
        (
            "a follower keeps its lock",
            'replies.ask(key.encode(), "PTTL", key)[1] > 0)',
            'replies.ask(key.encode(), "PTTL", key)[1] > 10**9)',
            "follow::a_sync_of_a_followed_job",
        ),
    ),
    *_of(
        "state/position",
        (
            "GTIDs that are none are not noticed",
            '        _check_gtids(found.gtids or "")\n',
            "",
            "position::gtids_that_are_none",
        ),
    ),
    *_of(
        "daemon/clocks",
        (
            "the target's clock is not followed",
            "self._ahead.get(node, self._own))\n",
            "self._own)\n",
            "daemon::what_time_it_is_by_the_target",
        ),
    ),
    *_of(
        "state/claim",
        (
            "another source counts as the same",
            'WORDS = {"source": "it reads from", ',
            "WORDS = {",
            "claim::another_source_is_another_job",
        ),
        (
            "another key counts as the same",
            ', "prefix": "its keys begin with"}',
            "}",
            "claim::another_job_of_the_name_is_refused",
        ),
        (
            "a query that is changed is run no slot anew",
            'frozenset({"table", "query", ',
            'frozenset({"table", ',
            "claim::a_job_that_is_changed_is_run_and_what_was_done_before_does_not_count",
        ),
    ),
    *_of(
        "pipeline/job_context",
        (
            "the name of another config's job is used",
            "        if not moved:\n",
            "        if moved:\n",
            "claim::another_job_of_the_name_is_refused",
        ),
    ),
    *_of(
        "state/history",
        (
            "a run is kept by this machine's clock",
            "        if took is not None:\n",
            "        if took is not None and took < 0:\n",
            "watch::times_are_told_by_the_clock_of_the_target",
        ),
    ),
    *_of(
        "jobs/status",
        (
            "a success in the future is believed",
            "    if ahead(success, now):\n",
            "    if ahead(success, now) > 1e9:\n",
            "watch::times_are_told_by_the_clock_of_the_target",
        ),
    ),
    *_of(
        "state/schedule",
        (
            "a slot that a wrong clock has done stands",
            'if done["slot"] > self._target.time(self._slot) + SKEW:',
            'if done["slot"] > self._target.time(self._slot) + 1e9:',
            "daemon::a_slot_is_done_once_whatever_the_clocks_say",
        ),
    ),
    *_of(
        "state/rejects",
        (
            "rejects are told apart by the clock",
            "if entry is None or entry.by != by",
            "if entry is None or entry.last < self._target.time(self._key) - 60",
            "reconcile::the_list_of_rejects_whatever_the_clocks_say",
        ),
    ),
    *_of(
        "state/lock",
        (
            "a lock that was not renewed is held",
            "        if self._lost or over <= 0:\n",
            "        if self._lost or over <= 1e9:\n",
            "lock::a_lock_ends_by_itself",
        ),
        (
            "who left its lock is not shut out",
            "            self._target.fences.shut_out(self._strangers.values())\n",
            "            pass\n",
            "lock::who_left_its_lock_without_a_word_is_shut_out",
        ),
        (
            "no replica knows of the lock",
            "        if not self._known:\n",
            "        if not self._known and not known and self._lost:\n",
            "changed::what_a_failover_must_not_undo",
        ),
        (
            "the fence of what may still be carried out is taken away",
            "        return target.fences.is_settled(target.slots.nodes) and not self.lapsed()",
            "        return True",
            "lock::a_run_that_left_something_under_way_stays_fenced",
        ),
    ),
    *_of(
        "state/lock_scripts",
        (
            "shards of other numbers go side by side",
            "if of ~= shards or theirs == shard then",
            "if theirs == shard then",
            "lock::shards_of_one_number_go_side_by_side",
        ),
        (
            "another's lock is let go",
            "if good and type(own) == 'table' and own['token'] == ARGV[2] then",
            "if good and type(own) == 'table' then",
            "lock::a_lock_is_renewed_and_taken_again_if_nobody_has_it",
        ),
    ),
    *_of(
        "redis/fences",
        (
            "our own connections are not closed",
            "if name in own or name.startswith",
            "if name.startswith",
            "writer::only_our_own_connections_are_fenced",
        ),
        (
            "those of others are not closed",
            "if name in own or name.startswith(theirs)]",
            "if name in own]",
            "writer::who_is_shut_out_has_no_connection_left",
        ),
    ),
    *_of(
        "redis/singles",
        (
            "a command that timed out is not fenced",
            "except DRIVER as error:\n                self._drop(node, fenced=True)\n",
            "except DRIVER as error:\n                self._drop(node)\n",
            "writer::a_command_that_timed_out_does_not_undo_a_newer_one",
        ),
    ),
    *_of(
        "redis/client",
        (
            "what WAIT says is not looked at",
            "        if node in self.topology.replicated and not replicas:\n            raise self.unknown",
            "        if False:\n            raise self.unknown",
            "changed::what_a_failover_must_not_undo",
        ),
    ),
    *_of(
        "redis/sockets",
        (
            "what is under way is not fenced",
            "            if link.awaited:\n                self._target.fences.add(link.node, link.name)\n",
            "",
            "links::what_is_under_way_when_a_writer_is_closed_is_fenced",
        ),
        (
            "what failed is not fenced",
            "        link.awaited.append(error)\n",
            "",
            "links::a_wait_that_timed_out_is_fenced",
        ),
        (
            "the lock is not asked about before bytes are sent",
            "        if link.unsent:\n            self.guard()\n",
            "",
            "links::nothing_is_sent_that_the_guard_refuses",
        ),
    ),
    *_of(
        "redis/writer",
        (
            "no replica needs to acknowledge",
            "        if counts[0] < 1:\n",
            "        if counts[0] < 0:\n",
            "links::a_chunk_that_no_replica_has_is_not_counted",
        ),
        (
            "a mark that is lost is not noticed",
            "        if not reply:\n            raise TargetError(",
            "        if reply is None:\n            raise TargetError(",
            "links::a_mark_that_is_lost_fails_the_chunk",
        ),
        (
            "a master that is none any more counts",
            "if gone := written - masters:",
            "if gone := written - masters - written:",
            "writer::what_was_written_to_a_master_that_is_none_any_more",
        ),
        (
            "ASK is followed without ASKING",
            'lead: list[list[bytes]] = [[b"ASKING"]] if asking else []',
            "lead: list[list[bytes]] = []",
            "writer::a_migrating_slot_is_followed_by_ask_to_a_node_without_slots",
        ),
        (
            "a foreign key gets our time to live",
            "return _without(sent.batch.then, {reject.key for reject in rejects})",
            "return sent.batch.then",
            "writer::a_foreign_key_is_a_reject_and_stays",
        ),
    ),
    *_of(
        "pipeline/retry",
        (
            "what does not pass is tried again",
            "if not error.transient or now + pause > min(give_up, limit.end())",
            "if now + pause > min(give_up, limit.end())",
            "sync::what_passes_is_tried_again_until_patience_ends",
        ),
        (
            "a server that hangs is waited for past the deadline",
            "with limit.trying(silence, give_up):",
            "with limit.trying(inf):",
            "deadline::what_falls_silent_amid_a_run_is_waited_for_until_the_deadline",
        ),
        (
            "what was waited for in vain is tried again for the whole deadline",
            "failing, fresh = now - error.waited, fresh + 1",
            "failing, fresh = now, fresh + 1",
            "deadline::who_fell_silent_has_failed_since_then",
        ),
        (
            "a run goes on trying though a worker has given up",
            "            if throttle.failure:\n",
            "            if not throttle:\n",
            "deadline::nothing_is_tried_again_once_a_worker_has_failed",
        ),
    ),
    *_of(
        "mysql/stream",
        (
            "a slow statement is taken for a server that hangs",
            "in_vain = not self._lives(probing)",
            "in_vain = True",
            "deadline::a_slow_statement_is_no_silence",
        ),
        (
            "a small result may drip",
            "        if now > self._ends:\n",
            "        if now > inf:\n",
            "deadline::mysql_drips",
        ),
    ),
    *_of(
        "redis/connections",
        (
            "a reply may drip",
            "if (left := self._ends - time.monotonic()) <= 0:",
            "if (left := inf) <= 0:",
            "deadline::redis_drips",
        ),
    ),
    *_of(
        "redis/fences",
        (
            "what a worker that hangs has sent is not fenced",
            "return not self.abandoned and not any(",
            "return not any(",
            "deadline::a_worker_that_does_not_end_leaves_the_fence",
        ),
    ),
    *_of(
        "state/lock",
        (
            "a worker that hangs may write once the lock is let go",
            '        self._lost = self._lost or LoaderError(f"the run of job {self._job!r} is over")\n',
            "        self._ended.set()\n",
            "deadline::a_worker_that_does_not_end_leaves_the_fence",
        ),
    ),
    *_of(
        "report/parts",
        (
            "a job has ended as the best of its parts",
            "        return max(self.ends.values(), key=ENDS.index)",
            "        return min(self.ends.values(), key=ENDS.index)",
            "many::a_shard_that_is_away_fails_alone parts::a_job_is_told_once_all_its_parts_have_ended",
        ),
        (
            "a job is told when the first of its parts has ended",
            "        if len(self._ends[name]) == self._totals[name]:",
            "        if self._ends[name]:",
            "many::parts_are_told_as_their_job",
        ),
    ),
    *_of(
        "daemon/tables",
        (
            "a source that is away is told of at each refresh",
            "        if error and error != self._told:",
            "        if error:",
            "many::a_source_that_is_away_keeps_its_parts_in_the_daemon",
        ),
    ),
    *_of(
        "pipeline/plan_facts",
        (
            "the server's own time zone is no matter",
            ' | {"server\'s time zone": zone}',
            "",
            "session::another_time_zone_of_the_server",
        ),
    ),
    *_of(
        "pipeline/run_state",
        (
            "an old checkpoint stands beside new markers",
            "            self.store.void()  # else the new markers would vouch for it\n",
            "",
            "backfill::a_checkpoint_is_void_once_a_run_begins_anew",
        ),
        (
            "a baseline is kept though masters are in doubt once it is saved",
            "        if self.masters.may_have_lost(resumed=self.resumed):\n",
            "        if self._context.shared:\n",
            "changed::a_master_whose_counters_are_reset_while_the_baseline_is_saved",
        ),
        (
            "what is lost between the last chunk and the end is not noticed",
            "        self._check_marks(marks)\n",
            "",
            "losses::a2_between_the_last_chunk_and_the_end",
        ),
    ),
    *_of(
        "pipeline/scheduled_slot",
        (
            "a slot is done twice",
            'elif self._slot <= done["slot"] and',
            'elif self._slot < done["slot"] and',
            "daemon::a_slot_is_done_once_whatever_the_clocks_say",
        ),
        (
            "a slot to come is done by a clock that is ahead",
            "done = self._slot if self._slot <= began + SKEW else int(began)",
            "done = self._slot",
            "daemon::a_slot_is_done_once_whatever_the_clocks_say",
        ),
    ),
    *_of(
        "pipeline/resume",
        (
            "a checkpoint of another plan is gone on with",
            "    if changed:\n        if scheduled:",
            "    if scheduled and changed:\n        if scheduled:",
            "backfill::a_changed_plan_is_refused_with_the_reason",
        ),
        (
            "a checkpoint is gone on with though markers are gone",
            'if there is None]:\n        return f"the target was emptied since',
            'if there is None and key in saved.facts]:\n        return f"the target was emptied since',
            "backfill::an_emptied_master_starts_over",
        ),
    ),
    *_of(
        "pipeline/plan_facts",
        (
            "a table that takes another's place during a run is not noticed",
            "if now and (another := difference(self._identity, self._identify(now))):",
            'if now and (another := ""):',
            "starting_over::s12_a_table_replaced_amid_a_run",
        ),
        (
            "another table of the name is built on",
            "if not self._job.table or not (self._job.incremental or self._resumes):",
            "if self._job.table:",
            "increment::another_table_of_the_name backfill::another_table_of_the_name_is_refused",
        ),
        (
            "a table that was rebuilt is written anew though all of it is read",
            "if not self._job.table or not (self._job.incremental or self._resumes):",
            "if not self._job.table:",
            "changed::a_table_that_was_rebuilt_is_held_against_the_digests",
        ),
    ),
    *_of(
        "state/checkpoint",
        (
            "fields that the job has no more are told of once",
            "self.set_fields(names | known)",
            "self.set_fields(names)",
            "reconcile::fields_that_the_job_has_no_more_are_told_of_until_a_repair",
        ),
        (
            "what is not known of a table counts as changed",
            "if name not in MAY_BE_UNKNOWN or (name in before and name in now)]",
            "if name]",
            "increment::another_table_of_the_name",
        ),
        (
            "a checkpoint of another version is read",
            "saved = recalled(Checkpoint, text, VERSION)",
            'saved = recalled(Checkpoint, text, parsed(text).get("version", 0))',
            "backfill::a_checkpoint_of_another_version_is_refused",
        ),
    ),
    *_of(
        "state/baseline",
        (
            "another plan is built on",
            "        if changed := difference(baseline.facts, facts):\n            return",
            "        if changed := difference(facts, facts):\n            return",
            "changed::another_plan_forgets_the_digests increment::a_changed_plan",
        ),
        (
            "markers that are gone are not missed",
            "if there is None]:\n            return",
            "if there is None and key in facts]:\n            return",
            "increment::a_master_that_was_emptied",
        ),
        (
            "keys that were thrown away are not missed",
            'return "has evicted keys" if now.evicted != before.evicted else ""',
            'return ""',
            "changed::doubts_about_a_master",
        ),
        (
            "a baseline without a marker on each master still says all",
            "        return same_lives and self._vouched(baseline) == set(self._target.slots.nodes)\n",
            "        return same_lives\n",
            "changed::when_a_baseline_still_says_all",
        ),
        (
            "a baseline of other facts still says all",
            "if isinstance(baseline.facts, EarlierFacts) or baseline.facts != facts:",
            "if isinstance(baseline.facts, EarlierFacts):",
            "changed::when_a_baseline_still_says_all",
        ),
        (
            "no replica knows that a baseline is void",
            'self._target.keep(self._key.encode(), ("SET", self._key, json.dumps({VOID: token})))',
            'self._target.ask(self._key.encode(), "SET", self._key, json.dumps({VOID: token}))',
            "changed::what_a_failover_must_not_undo",
        ),
    ),
    *_of(
        "redis/servers",
        (
            "counters that were reset are believed",
            "return self.connections < before.connections or self.connections <= self.client - before.client",
            "return self.connections < before.connections",
            "writer::counters_that_were_reset",
        ),
    ),
    *_of(
        "state/earlier",
        (
            "a plan that an earlier version noted in lower case was changed",
            '        return {**now, TYPES: types} if types.lower() == now.get(TYPES, "").lower() else now\n',
            "        return now if types else now\n",
            "earlier::a_backfill_goes_on earlier::changed_rows_alone_are_written",
        ),
        (
            "what an earlier version saw thrown away is not compared",
            "Life(process, evicted,",
            "Life(process, 0,",
            "earlier::an_increment_in_doubt_reads_everything",
        ),
    ),
    *_of(
        "state/markers",
        (
            "an earlier version's marker is no hash yet when workers count in it",
            "                    self._write(self._left[-1])\n",
            "                    pass\n",
            "earlier::a_backfill_goes_on",
        ),
        (
            "an earlier version's marker is garbage",
            " and not self._earlier_run(key):",
            ":",
            "earlier::a_marker_of_a_dead_run_is_no_garbage",
        ),
    ),
    *_of(
        "state/digests",
        (
            "no replica knows that a chunk is dirty",
            'self._target.keep(self._key.encode(), ("HMSET", self._key, *words))',
            'self._target.ask(self._key.encode(), "HMSET", self._key, *words)',
            "changed::what_a_failover_must_not_undo",
        ),
        (
            "a blob's checksum is not looked at",
            'entry.sum == zlib.crc32(blob or b"")',
            "entry.sum is not None",
            "changed::a_blob_that_is_not_what_the_index_says_makes_its_chunk_dirty",
        ),
        (
            "what a run wrote that did not end is known",
            'chain = self._without(chain, fields.get(WRITER.encode(), b"").decode(errors="replace"))',
            "pass",
            "changed::what_a_run_wrote_that_did_not_end_is_written_again",
        ),
        (
            "a run does not say that it changes the digests",
            "                self._enter()\n                self._former = None\n",
            "                self._former = None\n",
            "changed::a_run_that_dies_with_its_first_change",
        ),
        (
            "digests that another has taken over are changed",
            "                self._check_writer()\n                self._enter()\n",
            "                self._enter()\n",
            "changed::another_writer_that_came_before_the_first_change",
        ),
        (
            "digests that no run has closed count as complete",
            "return writer == fields.get(BASE.encode()) and size is not None and",
            "return",
            "changed::what_a_run_wrote_that_did_not_end_is_written_again",
        ),
        (
            "another writer is not noticed",
            "        if writer is None or writer not in",
            "        if writer is None and writer not in",
            "changed::a_run_begins_again_where_another_writes_the_digests",
        ),
    ),
    *_of(
        "pipeline/changed_only",
        (
            "a part that is owed again counts as written",
            "family.done.pop(number, None)",
            "pass",
            "fences::a_part_of_a_chunk_that_has_grown",
        ),
        (
            "a chunk is not dirty while it is written",
            "            self._first()\n            self._sent = True\n",
            "            self._sent = True\n",
            "changed::a_row_that_is_again_what_it_was_after_a_run_that_died",
        ),
        (
            "a row that Redis refused is known",
            ".without({reject.key for reject in acks.rejects})",
            "",
            "changed::a_row_that_redis_refuses_is_tried_again",
        ),
    ),
    *_of(
        "jobs/keyspace",
        (
            "who takes a slot is not gone over after who gives it",
            "*((node, True) for node in stood.takers)",
            "*()",
            "moves::a_key_that_moves_while_keys_are_looked_for",
        ),
        (
            "slots that moved meanwhile are not looked at again",
            "moved |= self._standing().changed(stood)",
            "self._standing()",
            "moves::a_key_that_moves_while_keys_are_looked_for",
        ),
        (
            "what nobody reaches of a half moved slot is passed over",
            "                        moved.add(slot)\n",
            "                        pass\n",
            "moves::a_slot_that_only_one_side_takes_for_open",
        ),
        (
            "a sample is of nothing where hashes are rare",
            "for node in () if found else nodes:",
            "for node in ():",
            "reconcile::a_sample_is_drawn_from_the_rows_that_the_job_takes",
        ),
        (
            "keys of others are extra",
            "yield list(filter(self._lookup.owns, page.reached(left))) if page else []",
            "yield list(page.reached(left)) if page else []",
            "reconcile::keys_of_others_are_left_alone_if_too_many_are_found_to_keep",
        ),
    ),
    *_of(
        "jobs/editor",
        (
            "a hash goes from one side of a half moved slot alone",
            "if copies := [each for each in commands if slot_of(each[0]) in moving]:",
            "if copies := list(commands[:0]):",
            "moves::a_key_that_a_move_has_left_on_both_sides",
        ),
        (
            "a deletion is not covered by the lock",
            "            session.throttle.hold(grant)\n            sent = self._send(commands, grant)\n",
            "            sent = self._send(commands, grant := self.throttle.grant())\n",
            "reconcile::a_deletion_that_the_lock_does_not_cover",
        ),
    ),
    *_of(
        "jobs/orphans",
        (
            "a difference counts when it is seen once",
            "if gone and looked + 1 < self._looks:",
            "if gone and looked + 9 < self._looks:",
            "reconcile::rows_and_hashes_that_change_meanwhile_do_not_count",
        ),
    ),
    *_of(
        "state/markers",
        (
            "a marker stays in a slot that is being moved",
            "                    self._target.mark_stale()\n                    self.move(node)\n",
            "                    self._target.mark_stale()\n",
            "links::a_marker_whose_slot_has_moved",
        ),
        (
            "another run's marker counts as ours",
            'if fields.pop(RUN.encode(), b"") != self.run.encode():',
            'if not fields.pop(RUN.encode(), b""):',
            "links::a_marker_of_another_run_is_none_of_ours",
        ),
        (
            "a number is noted though the one before is lost",
            "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end",
            "",
            "links::a_mark_that_is_lost_fails_the_chunk",
        ),
    ),
    *_of(
        "pipeline/transfer",
        (
            "a hash that expires is not written again",
            "        if not acks.expiring:\n",
            "        if acks:\n",
            "sync::a_hash_that_expires_while_it_is_written[sync-1h]",
        ),
        (
            "a hash keeps the time to live of another config",
            'send_each(b"PERSIST", acks.expiring, way, rows=False)',
            "pass",
            "sync::a_ttl_that_was_taken_out_of_the_job[incremental]",
        ),
    ),
    *_of(
        "redis/writer",
        (
            "what EXPIRE and TTL say is not looked at",
            "sum(counts) != replies",
            "False",
            "writer::hashes_that_do_not_live_as_long_as_they_are_to[False-TTL]",
        ),
        (
            "nor is it where a slot has moved",
            "if expects and not text and reply != int(expects[1:]):",
            "if False:",
            "writer::hashes_that_do_not_live_as_long_as_they_are_to[True-TTL]",
        ),
    ),
    *_of(
        "pipeline/job_context",
        (
            "keys that expire are not looked for",
            'if plan.layout.ttl is None and pool.seen("mortal", target, lambda: _has_mortal(target, settings.jobs)):',
            "if plan.layout.ttl is None and False:",
            "sync::a_ttl_that_was_taken_out_of_the_job[sync]",
        ),
    ),
    *_of(
        "pipeline/dispatcher",
        (
            "a chunk that is heard of after the doubt counts as sure",
            "yield from self._lost.owe_again([event], listener, SHARED)",
            "pass",
            "fences::a_chunk_that_is_heard_of_after_the_doubt",
        ),
        (
            "a checkpoint counts what another run may have written over",
            "                yield from self._lost.find_doubtful()\n",
            "",
            "fences::a_run_that_ends_in_doubt",
        ),
    ),
    *_of(
        "pipeline/lost_chunks",
        (
            "a run whose lock goes again and again goes on for ever",
            "if self._repeats > FRESH:",
            "if False:",
            "fences::a_lock_that_goes_again_and_again",
        ),
        (
            "what was written while the lock was lost is not written again",
            "yield from self.owe_again(ledger.since(since), listener, SHARED)",
            "yield from ()",
            "fences::chunks_written_while_another_run_may_have_had_the_lock",
        ),
        (
            "the lock is not asked for at the end",
            "self._context.with_retry(self._context.throttle.confirm)",
            "",
            "fences::a_lock_that_went_since_its_last_renewal",
        ),
        (
            "what a master has lost is not written again",
            "yield from self.owe_again(ledger.lost(self._state.masters.find_markers()), listener, LOST)",
            "self._state.masters.find_markers()",
            "losses::a2_a_master_comes_back_from_an_older_snapshot[sync-options0]",
        ),
        (
            "slots that moved are not noted",
            "ledger.vouch(context.with_retry(markers.note_moves))",
            "pass",
            "losses::a2_a_master_that_slots_have_moved_to",
        ),
        (
            "a chunk that is owed again is not dirty",
            "self._context.with_retry(partial(changes.mark_dirty, event.chunk.number))",
            "pass",
            "losses::a2_a_master_comes_back_from_an_older_snapshot[changed_only-options1]",
        ),
        (
            "replicas that lack chunks are not told of",
            "listener.notify(Notice(f\"redis {name}: {UNKNOWN.format(counted(exposure.count(name), 'chunk'))}\"))",
            "pass",
            "losses::a3_after_the_end_of_the_run[changed_only]",
        ),
    ),
    *_of(
        "pipeline/account",
        (
            "rejects of a chunk that is owed again count twice",
            "self._rejected -= len(event.rejects)",
            "pass",
            "fences::rejects_of_a_chunk_that_is_owed_again_count_once",
        ),
        (
            "a chunk that a worker has counts as done in the checkpoint",
            "owed=(*self.owed.values(), *self._backlog)",
            "owed=(*self._backlog,)",
            "dask::a_stopped_client_saves_what_is_loaded",
        ),
    ),
    *_of(
        "model",
        (
            "all rejects of a run are remembered",
            "return 1 + len(self.rejects)",
            "return 1",
            "ledger::rejects_count_as_well",
        ),
    ),
    *_of(
        "pipeline/ledger",
        (
            "chunks that are not remembered count as sure",
            "if self._forgotten >= moment:",
            "if False:",
            "ledger::chunks_since_a_moment_that_not_all_are_known_of",
        ),
        (
            "what is counted out still vouches",
            "self._all = {**self._older}",
            "self._all = {**self._all}",
            "ledger::what_is_counted_out_vouches_for_nothing",
        ),
        (
            "what is no longer remembered is not looked for",
            "raise StartOver(LOST)",
            "pass",
            "ledger::chunks_that_are_not_remembered_one_by_one",
        ),
        (
            "the oldest number counts",
            "greatest[key, field] = max(number, greatest.get((key, field), 0))",
            "greatest[key, field] = number",
            "ledger::numbers_that_come_in_any_order",
        ),
    ),
    *_of(
        "state/baseline",
        (
            "it is kept though it was called in question",
            "if self._read() != self._text:",
            "if self._read() is False:",
            "increment::a_run_leaves_no_baseline_where_it_was_called_in_question",
        ),
        (
            "what was called in question is built on",
            "if baseline.void:",
            "if not baseline:",
            "increment::a_baseline_that_was_called_in_question",
        ),
    ),
    *_of(
        "pipeline/job_context",
        (
            "a lock that was shared leaves the baseline alone",
            "Baselines(self.target, self.plan.job.name).void(under_way=True)",
            "pass",
            "fences::a_lock_lost_to_another_run_voids_its_baseline",
        ),
    ),
    *_of(
        "jobs/session",
        (
            "what a master has lost of a repair is not looked for",
            "if lacking(seen, self._ledger.marks()):",
            "if False:",
            "losses::a2_amid_a_repair[True]",
        ),
        (
            "a marker that is gone is not looked for",
            "if None in seen.values():",
            "if False:",
            "losses::a2_amid_a_repair[False]",
        ),
    ),
    *_of(
        "pipeline/signals",
        (
            "a signal that comes as a block ends is lost",
            "            signal.raise_signal(missed)\n",
            "            pass\n",
            "signals::a_signal_as_the_block_begins_or_ends",
        ),
    ),
    *_of(
        "pipeline/dispatcher",
        (
            "a run that is asked to halt begins all its chunks",
            "while not is_halting and len(",
            "while len(",
            "sync::a_run_that_is_asked_to_halt_begins_no_further_chunk",
        ),
    ),
    *_of(
        "jobs/follow",
        (
            "a job that a run takes ends the follower of the others",
            "if error.kind is not Kind.LOCKED or not may_wait:\n",
            "if error.kind is not Kind.LOCKED or job != 'a':\n",
            "follow_locks::a_run_comes_while_another_is_let_in",
        ),
        (
            "a job that a run has keeps the others from being followed",
            "may_wait=self.is_following or not until_caught_up)",
            "may_wait=self.is_following)",
            "follow_locks::a_run_has_a_job_from_the_start",
        ),
        (
            "who has to catch up leaves out a job",
            "until_caught_up=until_caught_up and is_whole",
            "until_caught_up=until_caught_up",
            "follow_locks::who_has_to_catch_up_does_so_with_all",
        ),
        (
            "a pass keeps the locks of other jobs",
            "            stack.close()\n",
            "",
            "follow_locks::a_pass_locks_no_other_job",
        ),
        (
            "a pass takes up chunks that were read before its position",
            "                StateStore(context.target, job.name).void()",
            "                _ = StateStore",
            "follow_locks::a_pass_does_not_take_up_what_was_read_before_its_position",
        ),
        (
            "a follower that is told to stop waits for Redis",
            "            if self._stopped:\n                return True\n",
            "",
            "follow::it_is_told_to_stop_while_a_run_has_the_lock",
        ),
    ),
    *_of(
        "pipeline/followed_job",
        (
            "a doubt is forgotten if Redis is away",
            (
                "        seen, grant = self._markers.read(), self.context.throttle.grant()\n"
                "        if None in seen.values():\n"
                "            raise StartOver(GONE)\n"
                "        lost = self._ledger.lost(seen)\n"
                "        if (since := self.context.take_doubt()) is not None:\n"
            ),
            (
                "        since, grant = self.context.take_doubt(), self.context.throttle.grant()\n"
                "        lost = self._ledger.lost(self._markers.read())\n"
                "        if since is not None:\n"
            ),
            "follow_locks::another_run_may_have_had_the_lock",
        ),
        (
            "a position is stored in doubt",
            "return self.context.is_doubtful(self._grant)",
            "return False",
            "follow_locks::another_run_may_have_had_the_lock",
        ),
    ),
    *_of(
        "daemon/followers",
        (
            "a fault of this program ends following for good",
            "except Exception as error:\n",
            "except (LoaderError, OSError) as error:\n",
            "follow_locks::a_fault_of_this_program_does_not_end_following",
        ),
        (
            "a follower that fails soon is begun again at once, for ever",
            "                    pause = min(AGAIN_MOST, pause * 2)\n",
            "                    pause = AGAIN_FIRST\n",
            "follow_locks::a_fault_of_this_program_does_not_end_following",
        ),
    ),
    *_of(
        "state/lock",
        (
            "a follower takes the lock again from a run that waits for it",
            "if self._yields and wanted_locks(",
            "if False and wanted_locks(",
            "follow::a_run_waits_for_the_lock",
        ),
        (
            "two dead holders are waited for",
            "is_dead = token not in dead and (",
            "is_dead = not dead and (",
            "fences::p11_two_dead_holders",
        ),
    ),
    *_of(
        "redis/connections",
        (
            "a process that dies leaves its bytes behind",
            "made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)",
            "",
            "writer::a_connection_leaves_no_bytes_behind",
        ),
        (
            "a host that is cut off keeps its bytes",
            "made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(FORGET * 1000))",
            "pass",
            "writer::a_connection_leaves_no_bytes_behind",
        ),
    ),
    *_of(
        "jobs/keyspace",
        (
            "a master that another one replaced is gone over",
            "if self._lives() != before:",
            "if not self._lives():",
            "reconcile::a_master_that_another_one_replaces_amid_a_scan",
        ),
    ),
    *_of(
        "redis/servers",
        (
            "a replica is taken for a master",
            'if info(b"role") == "slave":',
            "if not info:",
            "reconcile::a_replica_that_is_taken_for_a_master",
        ),
    ),
    *_of(
        "mysql/login",
        (
            "the password is given to whoever asks",
            "if self._way in CLEAR and connection.password and not connection.is_sealed:",
            "if not self._way:",
            "hostile::a4_the_password_itself_is_asked_for",
        ),
        (
            "the password goes with the name of the user",
            "if self._auth_plugin_name.encode() in CLEAR and not self.is_sealed:",
            "if not self._auth_plugin_name.encode():",
            "hostile::the_password_under_tls",
        ),
        (
            "any key is good enough",
            "[1:2] == ALL_OF_IT and not known:",
            "[1:2] == ALL_OF_IT and known is None:",
            "hostile::a_key_that_nothing_vouches_for",
        ),
    ),
    *_of(
        "mysql/connection",
        (
            "an answer without sense is a fault of the program",
            "except Exception as error:\n            raise self.failure(error, doing)",
            "except (pymysql.MySQLError, OSError) as error:\n            raise self.failure(error, doing)",
            "hostile::answers_without_sense hostile::a9_no_mysql hostile::a_file_is_asked_for",
        ),
    ),
    *_of(
        "redis/connections",
        (
            "any reply is taken for the one that was asked for",
            "if not isinstance(reply, Exception) and not is_plausible(name, reply):",
            "if isinstance(reply, Exception) and not name:",
            "hostile::replies_without_sense",
        ),
    ),
    *_of(
        "redis/connector",
        (
            "who is spoken to wrongly is waited for",
            "if why := self._spoken_wrongly(error, node):",
            "if not (why := str(error)):",
            "hostile::a_certificate_is_wanted security::no_plaintext_where_tls_is_meant",
        ),
    ),
    *_of(
        "redis/writer",
        (
            "an error that says nothing is none",
            '(number, line[1:].decode(errors="replace") or NAMELESS)',
            '(number, line[1:].decode(errors="replace"))',
            "hostile::an_error_that_says_nothing",
        ),
    ),
    *_of(
        "doctor/addresses",
        (
            "the address of the node that was asked is not told",
            'reached, note = (str(found), "") if found else',
            'reached, note = (str(found), "") if False else',
            "addresses::everything_reaches_a_cluster_behind_published_ports",
        ),
    ),
    *_of(
        "config/servers",
        (
            "announced addresses are dialled as they are",
            "return dialled.get((host.lower(), port), (host, port))",
            "return (host, port)",
            "addresses::redirections_and_replicas_are_followed_to_where_they_are_reached config::addresses_of_nodes",
        ),
    ),
    *_of(
        "config/nodes",
        (
            "tags are passed over",
            "if event.tag is not None:",
            "if False:",
            "nodes::the_rest_is_left_to_ruamel config::all_faults_at_once",
        ),
        (
            "libyaml is believed about everything",
            "if NOT_PLAIN.search(text):",
            "if False:",
            "nodes::the_rest_is_left_to_ruamel",
        ),
    ),
    *_of(
        "config/parsers",
        (
            "a server steers the terminal",
            'return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)',
            "return text",
            "hostile::a_terminal_is_not_steered",
        ),
    ),
    *_of(
        "cli/entry",
        (
            "a follower that is stopped as it starts is killed",
            "        signal.signal(number, _leave if is_until_stopped else _break_off)",
            "        signal.signal(number, _break_off)",
            "start_up::a_signal_at_once",
        ),
        (
            "a command that is stopped as it starts seems to be done",
            "_leave if is_until_stopped else _break_off",
            "_leave",
            "start_up::any_command_at_once",
        ),
        (
            "a reload ends a daemon that starts",
            'if command == "daemon":',
            "if not command:",
            "start_up::a_reload_at_once",
        ),
    ),
    *_of(
        "cli/command_line",
        (
            "help before a command is of that command alone",
            '        elif word == "--help" or (word[1:2] != "-" and "h" in word):',
            '        elif word == "--nothing":',
            "entry::the_command",
        ),
    ),
    *_of(
        "redis/driver",
        (
            "all of redis-py is imported for a few connections",
            'import_bare("redis")',
            "",
            "startup::what_is_not_imported",
        ),
    ),
    *_of(
        "records",
        (
            "a method is made anew for each call",
            "        method = LATE[name](kind)\n        setattr(kind, name, method)\n",
            "        method = LATE[name](kind)\n",
            "records::methods_are_made_once",
        ),
    ),
    *_of(
        "mysql/driver",
        (
            "PyMySQL cannot encrypt a password",
            "    importlib.reload(_auth)\n",
            "",
            "driver::a_password_under_a_key_of_the_server",
        ),
    ),
    *_of(
        "cli/main",
        (
            "a closed stream is the next socket's place",
            "    _open_streams()\n    try:",
            "    try:",
            "bad_input::streams_that_are_closed",
        ),
    ),
    *_of(
        "pipeline/run",
        (
            "a table that is gone is a fault of the config",
            "return Kind.VANISHED if is_missing and",
            "return Kind.VANISHED if not is_missing and",
            "bad_input::s11_a_table_that_is_gone",
        ),
    ),
    *_of(
        "redis/client",
        (
            "another type under a key of the loader's own is not named",
            'if code_of(text) in DATA and kind_of(key.decode(errors="replace")):',
            "if not text:",
            "garbage::garbage_in_each_key",
        ),
    ),
    *_of(
        "state/stored_json",
        (
            "what is nested too deeply ends in a traceback",
            "except RecursionError as error:",
            "except MemoryError as error:",
            "garbage::garbage_in_each_key",
        ),
        (
            "any value does",
            "if kind is Any or self._is_plain(kind, value):",
            "if kind in {Any, int, float, str, bool}:",
            "garbage::garbage_in_each_key",
        ),
    ),
    *_of(
        "state/claim",
        (
            "a claim that nobody can read is none",
            'raise foreign(self._key, f"does not say which config has the name ({error})") from error',
            "return {}",
            "claim::a_claim_that_does_not_say_whose_the_name_is",
        ),
    ),
    *_of(
        "pipeline/job_context",
        (
            "a prune ends the lock of the run that it is part of",
            "if not self._lender:",
            "if self._held:",
            "increment::a_full_run_is_due",
        ),
    ),
    *_of(
        "cli/status",
        (
            "jobs to look at are below the terminal",
            "sorted(found, key=attention) if sort else found",
            "found",
            "watch::watch_shows_what_needs_attention_first",
        ),
        (
            "a status that cannot be read is all right",
            "raise typer.Exit(Exit.OK if known else Exit.FAILED)",
            "raise typer.Exit(Exit.OK)",
            "reconcile::a_list_of_rejects_that_is_none",
        ),
    ),
    *_of(
        "state/checkpoint",
        (
            "fields that nobody can read are none",
            'raise foreign(self._fields, f"cannot be read ({error})") from error',
            "return frozenset()",
            "garbage::garbage_in_each_key",
        ),
    ),
    *_of(
        "state/tidy",
        (
            "what was none is taken away in silence",
            'self.told[error.key] = f"{error.what}: it was removed and will be rewritten"',
            "pass",
            "garbage::garbage_in_each_key garbage::what_is_written_anew_is_told_once",
        ),
    ),
    *_of(
        "state/lock_scripts",
        (
            "a fence of another type is taken",
            "refused(held, KEYS[1]) or refused(before, KEYS[2])",
            "refused(held, KEYS[1])",
            "garbage::garbage_in_each_key",
        ),
        (
            "a name on the fence may be anybody's",
            "if not string.match(listed[i + 1], '^loader%-%x+$') then",
            "if not listed[i + 1] then",
            "garbage::garbage_in_each_key",
        ),
    ),
    *_of(
        "mysql/login",
        (
            "whoever answers is taken for MySQL",
            "        self._recognize()\n        super()",
            "        super()",
            "hostile::a9_no_mysql",
        ),
    ),
    *_of(
        "web/health",
        (
            "what nobody thought of is no reason",
            "    except Exception as error:",
            "    except ZeroDivisionError as error:",
            "hostile::readiness_of_what_nobody_thought_of",
        ),
    ),
    *_of(
        "mysql/errors",
        (
            "a locked account is for a person to mend on one server alone",
            "3955, 4150, 4151,",
            "3955, 4150,",
            "limits::what_numbers_mean",
        ),
    ),
    *_of(
        "pipeline/job_context",
        (
            "a run has more workers than its account may have connections",
            "return wanted if most is None else min(wanted, most - 1)",
            "return wanted",
            "limits::few_connections",
        ),
        (
            "columns that are hidden are taken for missing",
            "        _check_seen(source, job, table, failed=True)\n        raise",
            "        raise",
            "limits::columns_that_are_not_granted",
        ),
    ),
    *_of(
        "redis/connector",
        (
            "whoever answers is taken for Redis",
            "if who := self._other_than_redis(error, node):",
            'if who := "":',
            "hostile::a9_no_redis",
        ),
    ),
    *_of(
        "redis/value_limit",
        (
            "what a server takes is not learned",
            "self.most = min(self.most, most)",
            "self.most = MOST",
            "limits::values_that_a_server_does_not_take",
        ),
    ),
    *_of(
        "redis/acl",
        (
            "a command that was renamed away is no matter to doctor",
            "if not known then refused[#refused + 1] = -place elseif not allowed",
            "if known and not allowed",
            "limits::commands_that_a_server_does_not_know",
        ),
    ),
    *_of(
        "mysql/catalog",
        (
            "the end of a row's period is part of its key",
            "zip(columns, periods, strict=True) if period != ROW_END)",
            "zip(columns, periods, strict=True))",
            "indexes::tables_with_a_history",
        ),
        (
            "an index that MySQL does not read along is taken for one",
            "is_ordered=kind in ORDERED and not bar,",
            "is_ordered=kind in ORDERED,",
            "indexes::changed_rows_are_found_by_an_index_that_mysql_reads_along",
        ),
        (
            "history counts as rows",
            "None if rows is None or has_history else",
            "None if rows is None else",
            "indexes::tables_with_a_history",
        ),
    ),
    *_of(
        "mysql/chunk_key",
        (
            "a walk goes along any key",
            '    if barred:\n        return f"since its index',
            '    if False:\n        return f"since its index',
            "indexes::a_walk_goes_along_an_index_that_mysql_reads_along",
        ),
    ),
    *_of(
        "jobs/verify",
        (
            "rows that no key can be made of are not missed",
            "            self._note(MISSING, [Difference(each.key, MISSING, each.reason) for each in rejects])\n",
            "",
            "reconcile::a_row_whose_key_is_null_has_no_hash",
        ),
    ),
    *_of(
        "config/statement",
        (
            "a semicolon at the end stays",
            "return sql if end == len(sql) else sql[:end].rstrip()",
            "return sql",
            "config::a_semicolon_at_the_end",
        ),
    ),
    *_of(
        "wire/row_images",
        (
            "an after image has only its own cells",
            "        cells |= _image(fields, after)",
            "        cells = dict.fromkeys(wanted) | _image(fields, after)",
            "row_images::an_after_image_with_a_part_of_the_key",
        ),
        (
            "a GTID counts before its transaction has ended",
            "        self.source, self.number = source, number\n",
            "        self.source, self.number = source, number\n        self._count(source, number)\n",
            "row_images::a_transaction_of_mysql",
        ),
        (
            "tables outlive their file",
            "        self._tables.clear()\n",
            "        pass\n",
            "row_images::rows_without_a_table_map",
        ),
        (
            "a position has 32 bits",
            "                self.offset += LOW + 1\n",
            "                pass\n",
            "row_images::ends_behind_4_gib",
        ),
    ),
    *_of(
        "wire/binlog",
        (
            "a checksum is not compared",
            "    elif is_checksummed and not _is_intact(event):",
            "    elif is_checksummed and False:",
            "row_images::a_checksum_that_is_wrong",
        ),
    ),
    *_of(
        "wire/compression",
        (
            "a payload may be cut off",
            "    if rest or (size is not None and total != size):",
            "    if False:",
            "binlog::a_broken_event",
        ),
    ),
    *_of(
        "wire/gtids",
        (
            "an interval ends with its last number",
            "first, last + 1) for",
            "first, last) for",
            "gtids::the_bytes_of_a_set",
        ),
        (
            "a tag is forgotten",
            "                    source = source[:UUID_SIZE] + word.lower().encode()",
            "                    pass",
            "gtids::the_text_of_a_set",
        ),
    ),
    *_of(
        "jobs/expand",
        (
            "the tables of a source that is away are forgotten",
            "    before = known.jobs.values() if known else ()",
            "    before: tuple[JobConfig, ...] = ()",
            "expand::tables_of_a_source_that_is_away_stay",
        ),
        (
            "a source that is away takes the others with it",
            "            answers.put((name, error))",
            "            answers.put((name, []))",
            "expand::tables_of_a_source_that_is_away_stay",
        ),
    ),
    *_of(
        "config/load",
        (
            "parts whose keys clash are let through",
            '        copy = self.model_copy(update={"jobs": jobs})\n',
            '        return self.model_copy(update={"jobs": jobs})\n',
            "many::keys_that_clash_are_refused",
        ),
    ),
    *_of(
        "config/parts",
        (
            "excluded tables are taken",
            "each in self._unwanted\n",
            "each in []\n",
            "many_config::patterns",
        ),
    ),
    *_of(
        "config/defaults",
        (
            "a default wins",
            "shared | job",
            "job | shared",
            "many_config::defaults",
        ),
    ),
    *_of(
        "mysql/connection",
        (
            "rows of another database are read from the one before",
            '            self.fetch(f"USE {quote(database)}")\n',
            "",
            "follow_command::several_servers",
        ),
    ),
    *_of(
        "mysql/binlog_statements",
        (
            "a statement that is not known is a definition",
            "    return effect or (Effect.DEFINITION if first in _DEFINING else Effect.DATA)",
            "    return effect or Effect.DEFINITION",
            "binlog_statements::the_effect_of_a_statement",
        ),
    ),
    *_of(
        "mysql/binlog",
        (
            "an event that is not known is passed over",
            "            case kind if not head.flags & IGNORABLE:",
            "            case kind if False:",
            "distress::an_event_that_is_not_known",
        ),
        (
            "a server that lost changes is believed to have none",
            "            case EventType.INCIDENT:\n",
            "            case EventType.INCIDENT:\n                return\n",
            "distress::an_incident",
        ),
        (
            "a definition within a transaction ends it",
            "                if scanner.group != Group.BEGUN:\n",
            "                if True:\n",
            "binlog_stream::what_is_told_of_changes",
        ),
    ),
    *_of(
        "mysql/barrier",
        (
            "a position of another server's binlog is waited for",
            "!= (self._server_id,):",
            "== ():",
            "barrier::what_is_waited_for",
        ),
        (
            "the last transaction stands for all of a batch",
            'GtidSet(",".join(committed.gtids))',
            "GtidSet(committed.gtids[-1])",
            "barrier::all_gtids_of_a_batch_are_waited_for",
        ),
    ),
    *_of(
        "mysql/binlog_held",
        (
            "a prepared transaction is passed over",
            "return next((prepared.before for prepared in self._prepared.values()), here)",
            "return here",
            "binlog_stream::a_prepared_transaction",
        ),
        (
            "keys of a prepared transaction are told at once",
            "Prepared(None if self._skipped else keys, before)",
            "Prepared({}, before)",
            "binlog_stream::a_prepared_transaction",
        ),
        (
            "the keys of a large transaction are lost",
            "            self._large[self._skipped] = end\n            return True\n",
            "            self._skipped = None\n",
            "large_transactions::every_key_is_told",
        ),
        (
            "the keys of a large XA transaction are lost",
            "            self.skip(prepared.before)\n",
            "            pass\n",
            "large_transactions::one_that_is_prepared",
        ),
    ),
    *_of(
        "mysql/dump",
        (
            "an unknown domain is read from the oldest file",
            "        if domain not in domains or known",
            "        if known",
            "binlog_stream::positions_of_no_server",
        ),
    ),
    *_of(
        "mysql/key_text",
        (
            "zeros at the end of bytes are lost",
            '        return lambda cell: cell.ljust(size, b"\\0")',
            "        return bytes",
            "key_text::the_text_of_padded_bytes",
        ),
    ),
    *_of(
        "lab/files",
        ("mysql is told an account that may only read", "user=owner", "user=loader", "lab::clients_find_the_lab"),
        (
            "the addresses name another database",
            "MYSQL_URL=mysql://loader@127.0.0.1:{mysql}/test",
            "MYSQL_URL=mysql://loader@127.0.0.1:{mysql}/mysql",
            "lab::clients_find_the_lab",
        ),
    ),
    *_of(
        "jobs/verify",
        (
            "a message is worded otherwise than the pages quote it",
            'EXTRA, "no row makes it")',
            'EXTRA, "it has no row")',
            "troubleshooting::messages_are_those_of_the_code docs_commands::verify",
        ),
    ),
    *_of(
        "pipeline/dask_worker",
        (
            "a worker of another version loads",
            "    if own != version:\n",
            "    if not own:\n",
            "dask::another_version_joins",
        ),
        (
            "a worker with another config loads",
            "        if another := difference(self._work.facts, own):",
            "        if another := difference(own, own):",
            "dask::another_config_is_refused_with_the_reason",
        ),
        (
            "a worker does not ask for the lock",
            (
                "        context.throttle.lock = self._lock\n"
                "        target.guard, target.admit = context.throttle.check, self._lock.confirm\n"
            ),
            "",
            "dask::workers_ask_for_the_lock",
        ),
        (
            "a chunk that failed counts as loaded",
            "        return _failed(str(error), error.kind, starts_over=isinstance(error, StartOver))\n",
            "        return Loaded(ChunkLoaded(chunk, 0, 0, (), {}, 0, 0.0, 0.0), settled=True)\n",
            "dask::a_worker_that_gets_no_connection_to_mysql",
        ),
    ),
    *_of(
        "redis/client",
        (
            "who reads the topology asks for the lock first",
            "            if not reads:\n                self.admit()\n",
            "            self.admit()\n",
            "lent_lock::the_lock_is_asked_of_a_dead_node",
        ),
    ),
    *_of(
        "state/lent_lock",
        (
            "the owner of a chunk may be anyone",
            "        if owners[-1:] != [self._name]:",
            "        if self._name not in owners:",
            "lent_lock::a_chunk_has_one_owner",
        ),
        (
            "the lock of another run is as good",
            " or own['token'] ~= ARGV[2]",
            "",
            "lent_lock::another_run_has_the_lock",
        ),
    ),
    *_of(
        "pipeline/dask",
        (
            "a worker in trouble ends the run of all",
            "        if failed.kind in ELSEWHERE and time",
            "        if not failed.kind and time",
            "dask::a_worker_that_gets_no_connection_to_mysql",
        ),
        (
            "a marker stays in a slot that is being moved",
            "            self._context.with_retry(lambda: markers.retire(moved))",
            "            pass",
            "dask_storms::slots_move",
        ),
        (
            "a scheduler that hangs again is not told of",
            "self._alone, self._is_told = self._looked, False",
            "self._alone = self._looked",
            "dask::a_scheduler_that_hangs",
        ),
    ),
    *_of(
        "pipeline/dask_client",
        (
            "a scheduler that hangs is waited for without end",
            "self._client.sync(self._count, callback_timeout=ANSWER)",
            "self._client.sync(self._count)",
            "dask::a_scheduler_that_hangs",
        ),
    ),
    *_of(
        "cli/main",
        (
            "a signal at the end is caught by nobody",
            "            signal.signal(number, signal.SIG_DFL)\n    sys.exit(code)",
            "            pass\n    sys.exit(code)",
            "cli::a_signal_at_the_very_end",
        ),
    ),
]
