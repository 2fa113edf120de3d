"""The catalogue of event types and the default Kafka key."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clerk.catalogue import (
    ALSO_SEEN,
    CATALOGUE,
    KEY_PATHS,
    did_you_mean,
    entity_key,
    entity_key_path,
    key_paths,
)


def test_the_catalogue_has_the_45_types_in_the_order_of_clerks_file() -> None:
    names = list(CATALOGUE)
    assert len(names) == 45
    assert names[0] == "email.created"
    assert names[-1] == "waitlistEntry.updated"
    # Alphabetical by entity, and within an entity by the course of its life.
    entities = [name.partition(".")[0] for name in names]
    assert entities == sorted(entities)


def test_every_type_is_under_its_own_name_with_its_entity() -> None:
    for name, event_type in {**CATALOGUE, **ALSO_SEEN}.items():
        assert event_type.name == name
        assert event_type.entity == name.partition(".")[0]
        assert event_type.description
        assert "\n" not in event_type.description


def test_no_type_is_both_in_the_catalogue_and_also_seen() -> None:
    assert not set(CATALOGUE) & set(ALSO_SEEN)


def test_the_catalogue_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        CATALOGUE["user.created"] = CATALOGUE["user.deleted"]  # type: ignore[index] # the point
    with pytest.raises(dataclasses.FrozenInstanceError):
        CATALOGUE["user.created"].name = "x"  # type: ignore[misc] # the point


def test_every_entity_of_the_catalogue_has_a_key_rule_and_no_other_has() -> None:
    assert {event_type.entity for event_type in CATALOGUE.values()} == set(KEY_PATHS)


PAYER = {"organization_id": "org_1", "user_id": "user_1"}


@pytest.mark.parametrize(
    ("event_type", "data", "key"),
    [
        ("user.created", {"id": "user_1"}, "user_1"),
        ("user.somethingNew", {"id": "user_1", "user_id": "no"}, "user_1"),
        ("session.ended", {"id": "sess_1", "user_id": "user_1"}, "user_1"),
        ("session.ended", {"id": "sess_1", "user_id": None}, "sess_1"),
        ("email.created", {"id": "ema_1", "user_id": "user_1"}, "user_1"),
        ("email.created", {"id": "ema_1", "user_id": ""}, "ema_1"),
        ("sms.created", {"id": "sms_1", "user_id": "user_1"}, "user_1"),
        ("sms.created", {"id": "sms_1"}, "sms_1"),
        ("organization.updated", {"id": "org_1", "organization_id": "no"}, "org_1"),
        ("organizationDomain.created", {"id": "d_1", "organization_id": "org_1"}, "org_1"),
        ("organizationDomain.deleted", {"id": "d_1"}, "d_1"),
        ("organizationInvitation.revoked", {"id": "i_1", "organization_id": "org_1"}, "org_1"),
        ("organizationMembership.updated", {"id": "m_1", "organization": {"id": "org_1"}}, "org_1"),
        ("organizationMembership.updated", {"id": "m_1", "organization": None}, "m_1"),
        ("organizationMembership.updated", {"id": "m_1", "organization": {"id": ""}}, "m_1"),
        ("subscription.active", {"id": "s_1", "payer": PAYER}, "org_1"),
        ("subscriptionItem.created", {"id": "s_1", "payer": PAYER}, "org_1"),
        ("paymentAttempt.created", {"id": "p_1", "payer": PAYER}, "org_1"),
        ("subscription.active", {"payer": {**PAYER, "organization_id": ""}}, "user_1"),
        ("subscription.active", {"payer": {"user_id": "user_1"}}, "user_1"),
        ("subscription.active", {"id": "s_1", "payer": {}}, "s_1"),
        ("subscription.active", {"id": "s_1", "payer": "org_1"}, "s_1"),
        ("subscription.active", {"id": "s_1", "payer": ["org_1"]}, "s_1"),
        ("role.created", {"id": "role_1"}, "role_1"),
        ("permission.deleted", {"id": "perm_1"}, "perm_1"),
        ("waitlistEntry.created", {"id": "w_1"}, "w_1"),
        ("invitation.created", {"id": "inv_1"}, "inv_1"),
        ("nobody.knows", {"id": 17}, "17"),
        ("nobody.knows", {"id": -1}, "-1"),
        ("no-dot-at-all", {"id": "x"}, "x"),
        ("", {"id": "x"}, "x"),
        ("user.created", {"id": 0}, None),
        ("user.created", {"id": True}, None),
        ("user.created", {"id": 1.5}, None),
        ("user.created", {"id": {"id": "x"}}, None),
        ("user.created", {"id": ["x"]}, None),
        ("user.created", {}, None),
        ("user.created", None, None),
        ("user.created", ["id"], None),
        ("user.created", "id", None),
    ],
)
def test_the_key_is_the_id_of_the_entity(event_type: str, data: object, key: str | None) -> None:
    assert entity_key(event_type, data) == key


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "user_id", "organization_id", "organization", "payer"]), inner
        )
    ),
    max_leaves=8,
)


@given(st.sampled_from([*CATALOGUE, *ALSO_SEEN, "x", "x.y"]) | st.text(max_size=8), JSON_VALUES)
def test_the_key_of_anything_is_a_non_empty_string_at_its_path_or_none(
    event_type: str, data: object
) -> None:
    key, path = entity_key(event_type, data), entity_key_path(event_type, data)
    if key is None or path is None:
        assert key is path is None
        return
    assert path in key_paths(event_type)
    value: object = {"data": data}
    for name in path.split("."):
        assert isinstance(value, dict)
        value = value[name]
    assert key
    assert key == str(value)


def test_explain_can_say_where_the_key_comes_from() -> None:
    data = {"id": "m_1", "organization": {"id": "org_1"}}
    assert entity_key_path("organizationMembership.created", data) == "data.organization.id"
    assert entity_key_path("organizationMembership.created", {"id": "m_1"}) == "data.id"
    assert entity_key_path("organizationMembership.created", {}) is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("user.creatd", "user.created"),
        ("user.create", "user.created"),
        ("users.created", "user.created"),
        ("User.Created", "user.created"),
        ("organisation.created", "organization.created"),
        ("organizationmembership.created", "organizationMembership.created"),
        ("organization_membership.deleted", "organizationMembership.deleted"),
        ("subscription.past_due", "subscription.pastDue"),
        ("invitation.create", "invitation.created"),
        ("subscriptionItem.create", "subscriptionItem.created"),
        ("users.*", "user.*"),
        ("organisation.*", "organization.*"),
    ],
)
def test_a_misspelt_type_has_a_suggestion(written: str, meant: str) -> None:
    assert did_you_mean(written) == meant


@pytest.mark.parametrize(
    "name",
    ["user.banned", "invoice.paid", "", "*", "user", "team.*", "user.created" * 1000],
)
def test_another_word_has_no_suggestion(name: str) -> None:
    assert did_you_mean(name) is None


@pytest.mark.parametrize("name", [*CATALOGUE, *ALSO_SEEN, "user.*", "subscriptionItem.*"])
def test_a_known_type_has_no_suggestion(name: str) -> None:
    assert did_you_mean(name) is None
