"""What every implementation of slot `replication` must do: the controllers, kind by kind.

The lab is the candidate itself. Checks put it into a small closed cluster (`Cluster`), which
carries out its writes and runs pods, and look at what has become of it.
"""

from __future__ import annotations

from sagong.conformance.replication_deployments import (
    check_deployment_makes_a_replica_set,
    check_deployment_needs_few_writes,
    check_deployment_scales_without_a_new_revision,
    check_history_is_limited,
    check_paused_deployment_does_not_roll,
    check_recreate_ends_the_old_before_the_new,
    check_rollback_uses_the_old_set_again,
    check_rolling_update_keeps_its_bounds,
    check_rollout_stops_at_broken_pods,
    check_scaling_amid_a_rollout_is_proportional,
    check_stuck_rollout_is_told,
)
from sagong.conformance.replication_garbage import (
    check_background_deletion_ends_dependents,
    check_every_namespace_has_its_basics,
    check_foreground_deletion_waits_for_dependents,
    check_live_owner_keeps_its_dependents,
    check_lost_owner_is_taken_away,
    check_namesake_is_no_owner,
    check_namespace_ends_after_its_contents,
    check_namespace_waits_for_finalizers,
    check_orphans_stay,
)
from sagong.conformance.replication_services import (
    check_ending_pods_serve_no_more,
    check_endpoints_follow_pods,
    check_headless_service_names_hosts,
    check_named_ports_are_looked_up,
    check_service_without_selector_is_left_alone,
    check_slices_hold_a_hundred,
    check_unready_may_be_published,
)
from sagong.conformance.replication_sets import (
    check_broken_objects_are_invalid,
    check_deleted_set_makes_no_pods,
    check_ended_pods_are_replaced,
    check_matching_strays_are_adopted,
    check_no_longer_matching_pods_are_let_go,
    check_others_pods_are_not_taken,
    check_pods_are_made_from_the_template,
    check_replication_controller_works_alike,
    check_same_situation_has_the_same_plan,
    check_status_counts_pods,
    check_surplus_ends_in_upstreams_order,
    check_writes_are_conditional,
)

__all__ = [
    "check_background_deletion_ends_dependents",
    "check_broken_objects_are_invalid",
    "check_deleted_set_makes_no_pods",
    "check_deployment_makes_a_replica_set",
    "check_deployment_needs_few_writes",
    "check_deployment_scales_without_a_new_revision",
    "check_ended_pods_are_replaced",
    "check_ending_pods_serve_no_more",
    "check_endpoints_follow_pods",
    "check_every_namespace_has_its_basics",
    "check_foreground_deletion_waits_for_dependents",
    "check_headless_service_names_hosts",
    "check_history_is_limited",
    "check_live_owner_keeps_its_dependents",
    "check_lost_owner_is_taken_away",
    "check_matching_strays_are_adopted",
    "check_named_ports_are_looked_up",
    "check_namesake_is_no_owner",
    "check_namespace_ends_after_its_contents",
    "check_namespace_waits_for_finalizers",
    "check_no_longer_matching_pods_are_let_go",
    "check_orphans_stay",
    "check_others_pods_are_not_taken",
    "check_paused_deployment_does_not_roll",
    "check_pods_are_made_from_the_template",
    "check_recreate_ends_the_old_before_the_new",
    "check_replication_controller_works_alike",
    "check_rollback_uses_the_old_set_again",
    "check_rolling_update_keeps_its_bounds",
    "check_rollout_stops_at_broken_pods",
    "check_same_situation_has_the_same_plan",
    "check_scaling_amid_a_rollout_is_proportional",
    "check_service_without_selector_is_left_alone",
    "check_slices_hold_a_hundred",
    "check_status_counts_pods",
    "check_stuck_rollout_is_told",
    "check_surplus_ends_in_upstreams_order",
    "check_unready_may_be_published",
    "check_writes_are_conditional",
]
