"""Every slot of a schedule is settled once: run, done elsewhere, or skipped for a reason that is told."""

import threading
import time
from collections import defaultdict
from itertools import pairwise

import pytest

from loader.config.models import ScheduleConfig
from loader.daemon import schedule as module
from loader.daemon.due_times import DueTimes
from loader.daemon.listeners import DueCounts
from loader.daemon.schedule import Schedule
from loader.errors import Kind
from loader.lab.process import wait
from loader.model import Run
from loader.outcome import Outcome, Reason

SECOND = ScheduleConfig(every="1s")
NEVER = ScheduleConfig(cron="0 0 29 2 *")  # not within a test, but for one day in four years


class Heard:
    """Notes what listeners are told."""

    def __init__(self):
        self.told = []
        self.lock = threading.Lock()

    def __getattr__(self, what):
        return lambda *facts: self.told.append((what, *facts))

    def of(self, what):
        return [facts for name, *facts in list(self.told) if name == what]


@pytest.fixture
def begin():
    """Starts a schedule with this work."""
    started = []

    def begin(work, jobs, at_once=4, **clock):
        heard = Heard()
        schedule = Schedule(work, [heard], at_once, **clock)
        schedule.set(jobs)
        schedule.start()
        started.append(schedule)
        return schedule, heard

    yield begin
    for schedule in started:
        schedule.stop()
        assert schedule.wait(30)


def failed(job, kind=Kind.FAULT):
    return Run(job, "x", outcome=Outcome(kind, "it broke"))


def settled(tally):
    return tally.run + tally.elsewhere + tally.running + tally.coalesced + tally.paused + tally.stopping


def test_a_failed_run_is_tried_again_and_what_crashes_is_told(begin, monkeypatch):
    """After a pause that doubles; an exception fails its job alone, and other jobs go on."""
    monkeypatch.setattr(module, "BACKOFF", 0.1)
    calls, pauses = defaultdict(list), defaultdict(list)
    try_again = Schedule._try_again

    def note(schedule, entry, slot, pause):
        pauses[entry.name].append(pause)
        try_again(schedule, entry, slot, pause)

    monkeypatch.setattr(Schedule, "_try_again", note)

    def work(job, slot):
        calls[job].append((slot, time.monotonic()))
        if job == "crash":
            raise RuntimeError("boom")
        return failed(job) if len(calls[job]) < 4 else Run(job, "x")

    schedule, heard = begin(work, {"fail": NEVER, "crash": NEVER})
    for name in ("fail", "crash"):
        schedule.take_up(name, 77)
    wait(lambda: len(calls["fail"]) == 4, "four attempts")
    slots, moments = zip(*calls["fail"], strict=True)
    assert slots == (77, 77, 77, 77)
    waited = [two - one for one, two in pairwise(moments)]
    assert all(least < seconds for least, seconds in zip((0.07, 0.14, 0.28), waited, strict=True))
    assert pauses["fail"] == [0.1, 0.2, 0.4]
    wait(lambda: schedule.counts()["fail"] == DueCounts(due=1, run=1, again=3), "the last to end")
    assert {str(error) for _, _, error in heard.of("crashed")} == {"boom"}
    assert next(run.error for run, _ in heard.of("ended") if run.job == "crash") == "RuntimeError: boom"
    assert schedule.counts()["crash"].run == 1


@pytest.mark.parametrize(("jobs", "at_once", "together"), [("abc", 2, 2), ("a", 4, 1)])
def test_no_job_overlaps_itself_and_no_more_run_than_have_places(begin, jobs, at_once, together):
    """A slot that comes while the run before it goes on, or waits for a place, is skipped and counted."""
    going = []
    most = []
    free = threading.Event()

    def work(job, slot):
        going.append(job)
        most.append(list(going))
        free.wait(2.3)
        going.remove(job)
        return Run(job, "x")

    schedule, heard = begin(work, dict.fromkeys(jobs, SECOND), at_once)
    wait(lambda: len(heard.of("skipped")) >= 3, "slots to be skipped")
    assert max(map(len, most)) == together
    assert all(len(set(names)) == len(names) for names in most)
    assert {reason for _, _, reason, _ in heard.of("skipped")} == {Reason.RUNNING}
    free.set()
    schedule.stop()
    assert schedule.wait(5)
    for tally in schedule.counts().values():
        assert tally.due == settled(tally) > 0


def test_a_job_that_is_locked_elsewhere_is_looked_at_again(begin, monkeypatch):
    """Until the lock is free, or another daemon has done the slot; which counts as one slot."""
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.05)
    locked = Run("", "x", outcome=Outcome(Kind.LOCKED, "locked by another"))
    done = Run("", "x", outcome=Outcome(Kind.DONE, "done by another"))
    answers = {"over": [locked, locked, Run("over", "x")], "done": [locked, done]}
    schedule, heard = begin(lambda job, _: answers[job].pop(0), {"over": NEVER, "done": NEVER})
    for name in answers:
        schedule.take_up(name, 77)
    wait(lambda: answers == {"over": [], "done": []}, "all answers")
    wait(lambda: len(heard.of("ended")) == 5, "the last to end")
    assert schedule.counts() == {"over": DueCounts(due=1, run=1), "done": DueCounts(due=1, elsewhere=1)}


def test_a_new_slot_takes_the_place_of_attempts_at_the_one_before(begin):
    """Five seconds' pause never delays what is due in one."""
    slots = []

    def work(job, slot):
        slots.append(slot)
        return failed(job)

    schedule, _ = begin(work, {"a": SECOND})
    wait(lambda: len(slots) >= 3, "three slots")
    assert slots == sorted(set(slots))
    assert slots[2] - slots[0] < module.BACKOFF  # or it was the pause that one of them waited for
    assert schedule.counts()["a"].again == 0


def test_a_new_slot_settles_the_one_that_is_still_locked_elsewhere(begin):
    """Each is counted: as running, since the run elsewhere goes on."""
    locked = Run("a", "x", outcome=Outcome(Kind.LOCKED, "locked by another"))
    schedule, heard = begin(lambda *_: locked, {"a": SECOND})
    wait(lambda: len(heard.of("skipped")) >= 2, "slots to be skipped")
    schedule.stop()
    assert schedule.wait(30)
    assert heard.of("skipped")[0][2] is Reason.RUNNING
    tally = schedule.counts()["a"]
    assert tally.due == settled(tally) > 0


def test_a_listener_that_fails_harms_no_job(begin):
    """What cannot be told, as to a pipe that nobody reads, or a fault in the telling: the jobs go on."""
    ran = []
    schedule, heard = begin(lambda job, _: ran.append(job) or Run(job, "x"), {"a": NEVER})
    heard.told = None
    for slot in (1, 2):
        schedule.take_up("a", slot)
        wait(lambda slot=slot: len(ran) == slot and schedule.wait(0), "the run")
    heard.told = []
    assert schedule.counts()["a"] == DueCounts(due=2, run=2)


def test_jobs_come_and_go(begin):
    """What is taken out comes no more, what is put in comes, and who stays keeps its next time."""
    ran = []
    schedule, heard = begin(
        lambda job, _: ran.append(job) or Run(job, "x"), {"a": SECOND, "c": ScheduleConfig(every="1h")}
    )
    wait(lambda: "a" in ran, "the first run")
    schedule.set({"b": SECOND, "c": ScheduleConfig(every="1h")})
    told = len(heard.of("rescheduled"))
    del ran[:]
    wait(lambda: "b" in ran, "the new job")
    assert "a" not in ran
    assert [name for name, due in heard.of("rescheduled")[:told]].count("c") == 1
    assert ["a", None] in heard.of("rescheduled")


def test_the_clock_set_back_does_not_stall_a_job(begin, monkeypatch):
    """An hour back: the next time is reckoned from what the clock says now."""
    schedule, heard = begin(lambda job, _: Run(job, "x"), {"a": ScheduleConfig(every="1h")})
    now = time.time()
    schedule.beat()
    monkeypatch.setattr(module.time, "time", lambda: now - 7200)
    schedule.beat()
    monkeypatch.undo()
    (_, first), (_, second) = heard.of("rescheduled")
    assert second == first - 7200


def test_slots_come_by_the_clock_that_is_shared(begin):
    """However far this machine's own is ahead; and as soon as one of them is set, by what it says then."""
    ahead, slots = 200.0, []
    schedule, heard = begin(
        lambda job, slot: slots.append(slot) or Run(job, "x"), {"a": SECOND}, clock=lambda _: time.time() - ahead
    )
    wait(lambda: len(slots) >= 2, "two slots")
    assert max(slots) <= time.time() - 200
    for ahead in (0.0, 100.0):
        schedule.beat()
        before = len(slots)
        wait(lambda before=before: len(slots) >= before + 2, "slots to go on")
        assert 0 <= time.time() - ahead - slots[-1] < 5
    schedule.stop()
    assert schedule.wait(5)
    tally = schedule.counts()["a"]
    assert tally.due == settled(tally)
    assert tally.coalesced >= 190
    assert {late < 5 for _, _, late in heard.of("started")} == {True}


def test_the_pause_of_an_attempt_stands_a_clock_that_is_set(begin, monkeypatch):
    """It is as long as it was, whatever the machine's clock says."""
    monkeypatch.setattr(module, "BACKOFF", 100.0)
    schedule, heard = begin(lambda job, _: failed(job), {"a": NEVER})
    schedule.take_up("a", 77)
    wait(lambda: schedule._entries["a"].timer.retry_at, "the pause")
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 3600)
    schedule.beat()
    monkeypatch.undo()
    pause = schedule._entries["a"].timer.retry_at - now - 3600
    assert 60 < pause < 130
    assert len(heard.of("started")) == 1


@pytest.mark.parametrize(
    ("timed", "first", "after", "passed"),
    [
        (ScheduleConfig(every="10s"), 1000, 1039, [1000, 1010, 1020, 1030]),
        (ScheduleConfig(every="10s"), 1000, 1000, [1000]),
        (ScheduleConfig(cron="*/2 * * * *"), 1080, 1400, [1080, 1200, 1320]),
    ],
)
def test_slots_that_passed_are_counted_by_the_schedule_itself(timed, first, after, passed):
    """After a sleep all slots that came are known, and the next one is the first after now."""
    times = DueTimes(timed, first - 1)
    assert times.next == first
    assert list(times.take(after)) == passed
    assert times.next > after


def test_a_gap_of_years_is_counted_in_no_time():
    """A clock that was wrong by thirty years: a billion slots of one second."""
    started = time.monotonic()
    times = DueTimes(SECOND, 0.5)
    assert len(times.take(1e9)) == 10**9
    assert time.monotonic() - started < 10


def test_jitter_moves_the_start_and_stays_before_the_next_slot():
    """Uniform from the slot on, up to the jitter or the next slot."""
    starts = [DueTimes(ScheduleConfig(every="10s", jitter="4s"), 1001).fire for _ in range(300)]
    assert 1010 <= min(starts) < 1011
    assert 1013 < max(starts) <= 1014
    starts = [DueTimes(ScheduleConfig(every="10s", jitter="1h"), 1001).fire for _ in range(300)]
    assert 1018 < max(starts) < 1020


def test_by_hand_a_job_has_a_place_and_never_runs_beside_itself(begin):
    """With a schedule or without; slots that come meanwhile are skipped as running, and then all goes on."""
    going, free, ran = [], threading.Event(), []

    def by_hand(name):
        going.append(name)
        free.wait(10)

    schedule, heard = begin(lambda job, _: ran.append(job) or Run(job, "x"), {"a": SECOND}, at_once=1)
    wait(lambda: schedule.wait(0) and schedule.by_hand("a", lambda: by_hand("a")), "a moment without a run")
    assert schedule.by_hand("a", going.clear) is False
    assert schedule.by_hand("loose", lambda: by_hand("loose")) is True
    assert schedule.by_hand("loose", going.clear) is False  # it waits for the place
    before = len(ran)
    wait(lambda: len(heard.of("skipped")) >= 2, "slots to be skipped")
    assert (going, len(ran)) == (["a"], before)
    free.set()
    wait(lambda: len(ran) >= before + 1, "the schedule to go on")
    assert going == ["a", "loose"]
    assert {reason for _, _, reason, _ in heard.of("skipped")} == {Reason.RUNNING}
    schedule.stop()
    assert schedule.wait(5)
    tally = schedule.counts()["a"]
    assert tally.due == settled(tally) == tally.run + tally.running
    assert schedule.by_hand("loose", going.clear) is False


def test_a_slot_that_comes_amid_work_by_hand_is_done_once_after_it(begin, monkeypatch):
    """However long that goes on; of several the last, the others are counted."""
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.05)
    ran, free = [], threading.Event()
    schedule, heard = begin(lambda job, slot: ran.append(slot) or Run(job, "x"), {"a": NEVER})
    assert schedule.by_hand("a", lambda: free.wait(10))
    schedule.take_up("a", 77)
    with schedule._lock:
        schedule._came(schedule._entries["a"], [78])
    assert ran == []
    free.set()
    wait(lambda: schedule.counts()["a"] == DueCounts(due=2, run=1, running=1), "the slot")
    assert ran == [78]
    assert heard.of("skipped") == [["a", 77, Reason.RUNNING, 1]]


def test_what_waits_by_hand_is_not_begun_once_the_schedule_stops(begin):
    """And what goes on is waited for."""
    free, began = threading.Event(), []
    schedule, _ = begin(lambda job, _: Run(job, "x"), {"a": NEVER}, at_once=1)
    assert schedule.by_hand("one", lambda: free.wait(10))
    assert schedule.by_hand("two", lambda: began.append("two"))
    schedule.stop()
    assert not schedule.wait(0.1)
    free.set()
    assert schedule.wait(5)
    assert began == []


def test_an_attempt_that_meets_a_run_by_hand_comes_later(begin, monkeypatch):
    """The slot that is owed is not lost: it is looked at again."""
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.05)
    locked = Run("a", "x", outcome=Outcome(Kind.LOCKED, "locked by another"))
    answers, free = [locked, Run("a", "x")], threading.Event()
    schedule, _ = begin(lambda *_: answers.pop(0), {"a": NEVER})
    schedule.take_up("a", 77)
    wait(lambda: len(answers) == 1 and schedule.by_hand("a", lambda: free.wait(10)), "the run by hand")
    wait(lambda: schedule._by_hand["a"].delays, "the attempt to come")
    assert len(answers) == 1
    free.set()
    wait(lambda: schedule.counts()["a"] == DueCounts(due=1, run=1), "the attempt")


def test_what_crashes_by_hand_gives_its_place_back(begin):
    """And the job may be begun again."""

    def crash():
        raise RuntimeError("boom")

    schedule, _ = begin(lambda job, _: Run(job, "x"), {"a": NEVER}, at_once=1)
    assert schedule.by_hand("a", crash)
    wait(lambda: schedule.by_hand("a", crash), "the place")
    assert schedule.wait(5)


def test_a_job_taken_out_while_it_runs_is_not_begun_beside_itself(begin):
    """Neither by hand nor by a schedule that it is given again."""
    free, began = threading.Event(), []

    def work(job, slot):
        began.append(slot)
        free.wait(10)
        return Run(job, "x")

    schedule, heard = begin(work, {"a": NEVER})
    schedule.take_up("a", 77)
    wait(lambda: began, "the run")
    schedule.set({})
    assert schedule.by_hand("a", began.clear) is False
    schedule.set({"a": SECOND})
    wait(lambda: heard.of("skipped"), "a slot to be skipped")
    assert began == [77]
    free.set()
    wait(lambda: len(began) >= 2, "the schedule to go on")


def test_a_slot_of_a_paused_job_is_settled_and_not_tried_again(begin):
    """As paused, which is no failure."""
    schedule, heard = begin(lambda job, _: Run(job, "x", outcome=Outcome(Kind.PAUSED, "paused")), {"a": NEVER})
    schedule.take_up("a", 77)
    wait(lambda: heard.of("skipped"), "the slot to be skipped")
    assert heard.of("skipped") == [["a", 77, Reason.PAUSED, 1]]
    assert schedule.counts()["a"] == DueCounts(due=1, paused=1)
    assert schedule._entries["a"].timer.retry_at is None
