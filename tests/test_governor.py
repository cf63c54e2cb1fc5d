"""engine.governor: threads by trial, on a machine made of numbers."""

from engine.costs import Costs
from engine.governor import Governor

COSTS = Costs({1: 0.02, 128: 1.0})


class Machine:
    """Steps take as long as the busy neighbours and the number of threads make them; time goes by with them."""

    def __init__(self, n_most: int) -> None:
        self.busy, self.now = 0.0, 0.0
        self.changes = 0
        self.governor = Governor(n_most, COSTS, lambda: self.busy)
        self.n_most = n_most

    def step(self) -> float:
        n = self.governor.n
        free = self.n_most - self.busy
        seconds = 0.02 * self.n_most / n * (3.0 if n > free else 1.0)  # one thread that has to wait makes all wait
        self.now += seconds
        self.changes += self.governor.observe(1, seconds, self.now) != n
        return seconds

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.step()


def beside_a_neighbour() -> Machine:
    """One that has given a core to it."""
    machine = Machine(2)
    machine.busy = 1.0
    machine.run(3)
    assert machine.governor.n == 1
    return machine


def test_a_quiet_machine_keeps_all_threads():
    machine = Machine(2)
    machine.run(30)
    assert (machine.governor.n, machine.changes) == (2, 0)


def test_a_busy_neighbour_takes_a_thread_and_gives_it_back():
    machine = beside_a_neighbour()
    machine.busy = 0.0
    machine.run(3)
    assert machine.governor.n == 2


def test_with_many_cores_as_many_threads_go_as_cores_are_busy():
    machine = Machine(8)
    machine.busy = 3.0
    machine.run(5)
    assert machine.governor.n == 5
    machine.busy = 1.0
    machine.run(20)
    assert machine.governor.n == 7


def test_it_does_not_flap_while_the_neighbour_stays():
    machine = Machine(2)
    machine.busy = 1.0
    machine.run(300)
    assert machine.governor.n == 1
    assert machine.changes < 40


def test_slow_steps_alone_are_no_reason():
    machine = Machine(2)
    for _ in range(500):
        machine.governor.observe(1, 0.06, machine.now)
        machine.now += 0.06
    assert machine.governor.n == 2


def test_who_only_reads_long_prompts_gets_the_threads_back_too():
    machine = beside_a_neighbour()
    machine.busy = 0.0
    machine.now += 60  # nothing is asked for a minute
    for _ in range(2):
        machine.now += 7.0
        machine.governor.observe(500, 7.0, machine.now)
    assert machine.governor.n == 2


def test_a_neighbour_who_stays_keeps_its_core_while_prompts_are_read():
    machine = Machine(2)
    machine.busy = 1.0
    machine.run(3)
    for _ in range(5):
        machine.now += 7.0
        machine.governor.observe(500, 7.0, machine.now)
    assert machine.governor.n == 1
