import threading

import pytest

from local.simcloud.faults import Call, Fault, Faults

RUN = Call("ec2", "RunInstances", "eu-west-2", "/? InstanceType=g4dn.xlarge")


def test_faults_take_effect_in_the_order_they_were_added_and_as_often_as_asked() -> None:
    faults = Faults()
    faults.add("ec2", "RunInstances", code="first", times=2)
    faults.add("ec2", code="second")
    met = [faults.take(RUN) for _ in range(4)]
    assert [fault.code if fault else None for fault in met] == ["first", "first", "second", None]


def test_a_fault_without_an_end_stays_until_it_is_removed() -> None:
    faults = Faults()
    fault = faults.add("ec2", code="always", times=None)
    assert [faults.take(RUN) for _ in range(5)] == [fault] * 5
    assert fault.hits == 5
    faults.remove(fault)
    assert faults.take(RUN) is None


@pytest.mark.parametrize(
    ("conditions", "hits"),
    [
        ({"service": "ec2"}, True),
        ({"service": "ec2", "action": "RunInstances", "match": "g4dn", "region": "eu-west-2"}, True),
        ({"service": "s3"}, False),
        ({"service": "ec2", "action": "DescribeInstances"}, False),
        ({"service": "ec2", "match": "g5"}, False),
        ({"service": "ec2", "region": "eu-west-1"}, False),
    ],
)
def test_a_fault_hits_the_calls_that_it_fits(conditions: dict[str, str], hits: bool) -> None:
    faults = Faults()
    faults.add(**conditions, code="x")  # type: ignore[arg-type]
    assert (faults.take(RUN) is not None) is hits


def test_a_fault_of_a_class_of_its_own_decides_which_calls_it_fits() -> None:
    class Writes(Fault):
        def fits(self, call: Call) -> bool:
            return call.action.startswith("Put")

    faults = Faults()
    fault = Writes("s3", code="x")
    faults.put(fault)
    assert faults.take(RUN) is None
    assert faults.take(Call("s3", "PutObject")) is fault


def test_skipped_calls_do_not_count_as_hits() -> None:
    faults = Faults()
    fault = faults.add("ec2", code="x", skip=2)
    assert [faults.take(RUN) for _ in range(4)] == [None, None, fault, None]
    assert fault.hits == 1


def test_a_hanging_call_goes_on_when_its_fault_is_removed() -> None:
    faults = Faults()
    # The fault hits one call only, and can still be removed while that call hangs.
    faults.add("ec2", hang=True)
    fault = faults.take(RUN)
    assert fault is not None
    assert faults.take(RUN) is None
    waiting = threading.Thread(target=fault.delay)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    faults.clear()
    waiting.join(5)
    assert not waiting.is_alive()
