"""Rules of approvals: which calls they are about, what they ask for together, and what they say they saw. Policies of a tenant."""

from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from domain import approval_policies
from domain.approval_policies import (
    MOST_POLICIES,
    ApprovalPolicyPublished,
    ApprovalPolicyRemoved,
    PoliciesChanged,
    PolicyDefinition,
    PublishPolicy,
    RemovePolicy,
    UsePolicies,
    policies_id_of,
)
from domain.approval_rules import (
    MOST_SEEN,
    ApprovalCheck,
    ApprovalRule,
    Because,
    BoundRule,
    Demand,
    Requirement,
    SeenCall,
    approval_id_of,
    arguments_hash,
    demand_by,
    demand_for,
)
from domain.errors import InvalidState, NotFound
from domain.kernel import NO_FUNCTIONS
from domain.tool_policy import ToolPolicy, policy_of
from tests.kit import Given, given
from tests.kit.engine import FUNCTIONS

ID, PROJECT, OTHER = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(3))
SEEN = SeenCall(
    tool="pay", cost=0.5, tainted=True, agent={"name": "a", "version": "1", "step": "s"}, run={"project_id": str(PROJECT)},
    on_behalf_of="user:ada",
)  # fmt: skip
ARGUMENTS = {"eur": 7}
NARROW = Demand(requirements=(Requirement(roles=("admin",)),))
WIDE = Demand(requirements=(Requirement(roles=("admin", "owner")),))


def demand(*rules: BoundRule, arguments: dict[str, Any] | None = None, seen: SeenCall = SEEN) -> Demand | None:
    return demand_for(rules, seen, ARGUMENTS if arguments is None else arguments, FUNCTIONS)


# --- rules ----------------------------------------------------------------------------------------------------------------------


def test_without_a_rule_that_is_true_nothing_is_needed() -> None:
    assert demand() is None and demand(BoundRule(when="arguments.eur > 7")) is None
    assert demand_by(None, ARGUMENTS, FUNCTIONS) is None


def test_a_rule_without_a_condition_is_about_each_call() -> None:
    assert demand_for((BoundRule(),), SEEN, ARGUMENTS, NO_FUNCTIONS) == Demand(
        because=(Because(),), tainted=True, project_id=PROJECT
    )  # fmt: skip
    nowhere = demand(BoundRule(), seen=SeenCall(tool="pay"))
    assert nowhere is not None and nowhere.project_id is None and not nowhere.tainted


@pytest.mark.parametrize(
    "expression",
    ["arguments.eur == 7", "cost < 1.0", "tainted", "tool == 'pay'", "agent.name == 'a'", f"run.project_id == '{PROJECT}'",
     "on_behalf_of == 'user:ada'"],
)  # fmt: skip
def test_an_expression_sees_the_call(expression: str) -> None:
    [because] = (demand(BoundRule(policy="p", version=2, number=1, when=expression)) or Demand()).because
    assert (because.policy, because.version, because.number, because.expression, because.error) == ("p", 2, 1, expression, None)
    assert len(because.saw) == 1


@pytest.mark.parametrize(
    ("expression", "told"), [("arguments.usd > 1", "usd"), ("1", "neither true nor false"), ("null", "neither"), ("'x'", "neither")]
)
def test_an_expression_without_an_answer_asks_for_the_approval(expression: str, told: str) -> None:
    asked = demand(BoundRule(when=expression))
    assert asked is not None and told in (asked.because[0].error or "")
    blind = demand_for((BoundRule(when="true"),), SEEN, ARGUMENTS, NO_FUNCTIONS)
    assert blind is not None and blind.because[0].error == "no expression can be evaluated here"


def test_large_values_are_not_kept() -> None:
    large = {"a": "x" * MOST_SEEN, "b": "y" * (MOST_SEEN - 2)}
    asked = demand(BoundRule(when="arguments.a != arguments.b"), arguments=large)
    assert asked is not None and asked.because[0].saw == {"arguments.a": None, "arguments.b": large["b"]}
    small = {"a": "x", "b": "y"}
    asked = demand(BoundRule(when="arguments.a != arguments.b"), arguments=small)
    assert asked is not None and asked.because[0].saw == {"arguments.a": "x", "arguments.b": "y"}


def test_all_rules_that_are_true_count_together() -> None:
    asked = demand(
        BoundRule(policy="a", roles=("operator", "admin"), deadline_s=60, default="approve"),
        BoundRule(policy="b", approvers=2, deadline_s=30, default="approve"),
        BoundRule(policy="c", when="false", four_eyes=True),
    )
    assert asked is not None
    assert asked.requirements == (Requirement(roles=("admin", "operator")), Requirement(approvers=2))
    assert (asked.deadline_s, asked.default, asked.four_eyes, asked.needed) == (30, "approve", False, 2)
    assert [each.policy for each in asked.because] == ["a", "b"]
    strict = demand(BoundRule(deadline_s=60, default="approve"), BoundRule(four_eyes=True))
    assert strict is not None and (strict.deadline_s, strict.default, strict.four_eyes) == (60, "deny", True)
    assert strict.requirements == (Requirement(),)


def test_who_may_decide_is_who_counts_for_some_rule() -> None:
    assert Demand().roles == ("owner", "admin", "operator")
    narrow = Demand(requirements=(Requirement(roles=("admin",)), Requirement(roles=("operator",))))
    assert narrow.roles == ("admin", "operator") and narrow.counts("admin") and not narrow.counts("owner")
    assert not narrow.met_by(["admin", "admin"]) and narrow.met_by(["admin", "operator"])
    assert Requirement(approvers=2).met_by(["a", "b"]) and not Requirement(approvers=2).met_by(["a"])
    assert not Requirement(roles=("admin",)).met_by(["operator"])


@pytest.mark.parametrize(
    ("mine", "theirs", "covered"),
    [
        (Demand(), Demand(), True),
        (Demand(), Demand(requirements=(Requirement(approvers=2),)), True),
        (Demand(requirements=(Requirement(approvers=2),)), Demand(), False),
        (NARROW, Demand(), False),
        (Demand(), NARROW, True),
        (
            WIDE,
            NARROW,
            True,
        ),
        (
            NARROW,
            WIDE,
            False,
        ),
        (Demand(requirements=(Requirement(), Requirement(roles=("admin",)))), Demand(), False),
        (Demand(four_eyes=True), Demand(), False),
        (Demand(four_eyes=True), Demand(four_eyes=True), True),
        (Demand(), Demand(four_eyes=True), True),
    ],
)
def test_what_asks_no_more(mine: Demand, theirs: Demand, covered: bool) -> None:
    assert mine.asks_no_more_than(theirs) is covered


def test_a_rule_is_about_tools_by_pattern() -> None:
    rule = ApprovalRule(tools=("mail.*", "pay"))
    assert [rule.fits(name) for name in ("mail.send", "pay", "mail", "payment")] == [True, True, False, False]
    assert ApprovalRule().fits("anything") and not ApprovalRule(tools=("Pay",)).fits("pay")


@pytest.mark.parametrize(
    "given_", [{"tools": []}, {"approvers": 0}, {"approvers": 11}, {"roles": ["worker"]}, {"deadline_s": 0}, {"default": "approve"},
               {"deadline_s": float("inf")}, {"odd": 1}, {"when": ""}],
)  # fmt: skip
def test_a_rule_that_says_nothing_sensible_is_refused(given_: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ApprovalRule.model_validate(given_)


def test_a_hash_does_not_depend_on_the_order_of_fields() -> None:
    assert arguments_hash({"a": 1, "b": [2]}) == arguments_hash({"b": [2], "a": 1}) != arguments_hash({"a": 1, "b": [3]})
    assert arguments_hash({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert arguments_hash({"a": "ü"}) == "fd621823002706e24604cb868a9f4f8850d6f01fb5040d49ba050482e1472437"
    assert approval_id_of(ID, 0) != approval_id_of(ID, 1)


def test_rules_that_wait_for_arguments_are_evaluated_with_them() -> None:
    check = ApprovalCheck(rules=(BoundRule(when="arguments.eur > 5"),), seen=SEEN)
    assert demand_by(check, {"eur": 1}, FUNCTIONS) is None and demand_by(check, {"eur": 6}, FUNCTIONS) is not None
    again = ApprovalCheck.model_validate(check.model_dump(mode="json", exclude_defaults=True))
    assert again == check


def test_what_a_tool_declares_is_read_back() -> None:
    for approval in (True, "arguments.eur > 1"):
        assert policy_of(ToolPolicy(approval=approval).said()).approval == approval
    with pytest.raises(ValidationError):
        ToolPolicy.model_validate({"approval": False})


# --- policies ---------------------------------------------------------------------------------------------------------------------

DEFINITION = PolicyDefinition(rules=(ApprovalRule(tools=("pay",), when="true"),))


def publish(name: str = "p", definition: PolicyDefinition = DEFINITION, **more: Any) -> PublishPolicy:
    return PublishPolicy(policies_id=ID, name=name, definition=definition, by="key:a", **more)


def remove(name: str = "p", **more: Any) -> RemovePolicy:
    return RemovePolicy(policies_id=ID, name=name, by="key:b", **more)


def use(changes: int) -> UsePolicies:
    return UsePolicies(policies_id=ID, changes=changes)


def none() -> Given:
    return given(approval_policies.DECIDER)


def test_each_publication_is_a_version_that_says_something_else() -> None:
    said = {"on_behalf_of": "user:x", "reason": "why"}
    none().when(publish(**said)).then(
        ApprovalPolicyPublished(name="p", version=1, definition={"rules": [{"tools": ["pay"], "when": "true"}]}, by="key:a", **said)
    )
    one = none().after(publish())
    one.when(publish()).then()
    other = PolicyDefinition(rules=(ApprovalRule(),), description="d", project_id=PROJECT)
    [second] = one.when(publish(definition=other)).events()
    assert isinstance(second, ApprovalPolicyPublished) and second.version == 2
    assert second.definition == {"rules": [{}], "description": "d", "project_id": str(PROJECT)}
    gone = one.after(remove())
    [third] = gone.when(publish()).events()
    assert isinstance(third, ApprovalPolicyPublished) and third.version == 2


def test_a_removed_policy_counts_no_more() -> None:
    said = {"on_behalf_of": "user:x", "reason": "why"}
    one = none().after(publish())
    one.when(remove(**said)).then(ApprovalPolicyRemoved(name="p", by="key:b", **said))
    one.after(remove()).when(remove()).then()
    none().when(remove()).refused(NotFound, "^there is no approval policy 'p'$")
    assert one.after(remove()).state.about("pay", None) == ()


def test_a_tenant_has_not_too_many() -> None:
    full = none().after(*(publish(f"p{n}") for n in range(MOST_POLICIES)))
    full.when(publish("more")).refused(
        InvalidState, "^a tenant has at most 100 approval policies: remove one, or add rules to another$"
    )
    assert full.when(publish("p5", PolicyDefinition(rules=(ApprovalRule(),)))).events()
    assert full.after(remove("p3")).when(publish("more")).events()


def test_a_call_relies_on_all_policies_as_they_were_looked_at() -> None:
    none().when(use(0)).then()
    one = none().after(publish())
    one.when(use(1)).then()
    one.when(use(0)).refused(PoliciesChanged, "^the approval policies have changed meanwhile$")
    one.after(remove()).when(use(1)).refused(PoliciesChanged)
    one.after(remove()).when(use(2)).then()


def test_the_rules_about_a_tool_are_those_of_its_name_and_project() -> None:
    of_project = PolicyDefinition(
        rules=(ApprovalRule(), ApprovalRule(tools=("other",)), ApprovalRule(approvers=2)), project_id=PROJECT
    )
    state = none().after(publish("b"), publish("a", of_project)).state
    assert state.about("pay", PROJECT) == (
        BoundRule(policy="a", version=1, number=0), BoundRule(policy="a", version=1, number=2, approvers=2),
        BoundRule(policy="b", version=1, number=0, when="true"),
    )  # fmt: skip
    assert [rule.policy for rule in state.about("pay", None)] == ["b"] == [rule.policy for rule in state.about("pay", OTHER)]
    assert state.about("other", None) == ()
    assert policies_id_of(ID) == policies_id_of(ID) != policies_id_of(OTHER)
