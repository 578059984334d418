"""What single objects say: arguments, mounts, scheduling, servers, order."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from build_cases import (
    BACKUP,
    CASES,
    FEED,
    IMAGE,
    INPUTS,
    MANAGED,
    OWN,
    POSTGRES_PASSWORD,
    REDIS_PASSWORD,
    feed,
    find,
    of_feed,
    of_pipeline,
    pipeline,
    templates,
)  # fmt: skip
from typer.main import get_command

from feedmill.cli.main import load
from feedmill.local.managed import __main__ as managed
from feedmill.resources.common import ResourceRequirements
from feedmill.shared.config import resolve_urls
from feedmill_operator import names
from feedmill_operator.build.feed import build_feed, working_shards
from feedmill_operator.build.inputs import ClusterFacts, FeedInputs, Manifest, PipelineInputs
from feedmill_operator.build.migration import migration_key
from feedmill_operator.build.pipeline import build_pipeline
from feedmill_operator.build.resources import merged


def container(manifests: list[Manifest], where: str) -> Manifest:
    (found,) = templates(manifests)[where]["spec"]["containers"]
    return found


def env(found: Manifest) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in found.get("env", ())}


def mounted(template: Manifest) -> set[str]:
    """Paths of the keys of Secrets inside the pod."""
    return {
        f"{names.SECRETS_DIR}/{item['path']}"
        for volume in template["spec"]["volumes"]
        for source in volume.get("projected", {}).get("sources", ())
        for item in source["secret"]["items"]
    }


@pytest.mark.parametrize("name", CASES)
def test_the_command_lines_take_the_arguments(name: str) -> None:
    for where, template in templates(CASES[name]()).items():
        (found,) = template["spec"]["containers"]
        head, *rest = found["args"]
        if "command" in found:
            assert found["command"][:3] == ["python", "-m", managed.__package__]
            server: Any = get_command(managed.app)
            given = server.commands[found["command"][3]].make_context(where, list(found["args"])).params
            assert str(given["password_file"]) in mounted(template)
        elif head == "migrate":
            command: Any = load(head)
            assert command.make_context(where, rest).params["wait"] == "180s"
        else:
            role, *rest = rest
            command = load(head)
            given = command.commands[role].make_context(where, rest).params
            if role != names.Run.PRUNE:
                assert (given["health_host"], given["health_port"]) == ("0.0.0.0", names.HEALTH_PORT)
            assert given["config"] == [Path(f"{names.CONFIG_DIR}/resources.yaml")]
            assert given["secrets_dir"] == Path(names.SECRETS_DIR)
            assert found["name"] == (names.BACKUP_RUN if head == "backup" else role)


@pytest.mark.parametrize("name", CASES)
def test_pods_have_the_secrets_they_need_and_no_others(name: str) -> None:
    asks = {
        names.RECEIVER: {names.REDIS}, names.DISTRIBUTOR: {names.REDIS}, names.PROCESSOR: {names.REDIS, names.POSTGRES},
        names.MIGRATION: {names.POSTGRES}, names.MAINTENANCE: {names.REDIS, names.POSTGRES},
        names.ACCOUNTS: {names.REDIS, names.POSTGRES}, names.NOTIFY: {names.POSTGRES},
        names.BACKUP: {names.POSTGRES}, names.BACKUP_RUN: {names.POSTGRES},
    }  # fmt: skip
    of = INPUTS[name].pipeline
    own = of.spec.redis.url_secret_ref is not None
    files = {
        names.REDIS: {"servers/redis", "servers/ca.crt"} if own else {"main-redis/url"},
        names.POSTGRES: {"database-app/uri", "database-ca/ca.crt"} if own else {"main-postgres/url"},
    }
    for where, template in templates(CASES[name]()).items():
        (found,) = template["spec"]["containers"]
        role = found["name"]
        wanted = {path for server in asks.get(role, ()) for path in files[server]}
        if role in (names.REDIS, names.POSTGRES):
            wanted = {f"main-{role}/password"}
        if role == names.RECEIVER and own:
            wanted |= {"deribit-key/apiKey", "deribit-key/apiSecret"}
        if role == names.ACCOUNTS:
            secrets = {"fund-key", "servers"} if own else {"fund-key"}
            wanted |= {f"{secret}/{key}" for secret in secrets for key in ("apiKey", "apiSecret", "privateKey")}
            wanted |= {"wrapping/keys"} if own else set()
        if where.endswith("-prune"):
            wanted = set()
        if role == names.NOTIFY:
            wanted.add("telegram/token")
        if role in (names.BACKUP, names.BACKUP_RUN):
            wanted |= {"backup-key/key", "b2/keyId", "b2/applicationKey"} if own else {"backup-key/keys"}
        assert mounted(template) == {f"{names.SECRETS_DIR}/{path}" for path in wanted}
        for variable, value in env(found).items():
            if variable.endswith("_FILE") or variable == "PGSSLROOTCERT":
                assert value in mounted(template)


def test_the_services_resolve_the_urls_of_managed_servers(tmp_path: Path) -> None:
    made = CASES["managed-pipeline"]()
    paths = {}
    for server, variable in ((names.REDIS, "REDIS_URL_FILE"), (names.POSTGRES, "DATABASE_URL_FILE")):
        secret = find(made, "Secret", f"main-{server}")
        assert secret["metadata"]["labels"][names.WATCH] == "true"
        for key, value in secret["data"].items():
            path = tmp_path / f"main-{server}" / key
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(base64.b64decode(value))
            paths[f"{names.SECRETS_DIR}/main-{server}/{key}"] = str(path)
        assert (tmp_path / f"main-{server}" / "password").read_text(encoding="utf-8") in (
            REDIS_PASSWORD, POSTGRES_PASSWORD,
        )  # fmt: skip
        assert env(container(made, "Deployment/main-processor"))[variable] in paths
    given = {
        variable: paths[value]
        for variable, value in env(container(made, "Deployment/main-processor")).items()
        if variable.endswith("_FILE")
    }
    redis, database = resolve_urls(pipeline(MANAGED), given, tmp_path)
    assert redis.password == REDIS_PASSWORD
    assert (redis.host, redis.port) == ("main-redis.feeds.svc", 6379)
    assert database.endswith("@main-postgres.feeds.svc:5432/feedmill")
    assert POSTGRES_PASSWORD not in database
    assert not any("urlSecretRef" in each for each in find(made, "ConfigMap")["data"].values())


def test_the_migration_checks_the_server_as_the_services_do() -> None:
    found = env(container(CASES["own-pipeline"](), _job(CASES["own-pipeline"]())))
    assert found == {
        "DATABASE_URL_FILE": f"{names.SECRETS_DIR}/database-app/uri",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": f"{names.SECRETS_DIR}/database-ca/ca.crt",
    }


def _job(manifests: list[Manifest]) -> str:
    return f"Job/{find(manifests, 'Job')['metadata']['name']}"


def test_a_migration_is_of_an_image_and_a_database() -> None:
    inputs = of_pipeline(pipeline(MANAGED))
    same = replace(
        inputs, migrated=False, restart="again", feeds=[feed(FEED)], pipeline=pipeline(MANAGED, logLevel="Debug")
    )
    assert migration_key(inputs) == migration_key(same)
    assert migration_key(inputs) != migration_key(replace(inputs, image="other:2"))
    assert migration_key(inputs) != migration_key(of_pipeline(pipeline(OWN)))
    job = find(build_pipeline(inputs), "Job")
    assert job["metadata"]["name"] == names.migration("main", migration_key(inputs))
    assert "ttlSecondsAfterFinished" not in job["spec"]


def test_processors_wait_for_the_migration() -> None:
    kinds = [each["kind"] for each in CASES["managed-pipeline-not-migrated"]()]
    assert "Job" in kinds
    assert "Deployment" not in kinds
    later = [each["kind"] for each in CASES["managed-pipeline"]()]
    assert later.index("StatefulSet") < later.index("Job") < later.index("Deployment")


def test_replicas_are_those_of_the_spec() -> None:
    assert find(CASES["own-pipeline"](), "Deployment")["spec"]["replicas"] == 3
    made = CASES["own-feed"]()
    assert [each["spec"]["replicas"] for each in made if each["kind"] == "Deployment"] == [2, 2]
    assert len([each for each in made if each["kind"] == "PodDisruptionBudget"]) == 2
    assert not [each for each in CASES["managed-feed"]() if each["kind"] == "PodDisruptionBudget"]


def test_a_shard_without_instruments_has_no_pods() -> None:
    one = INPUTS["shards-feed"]
    assert isinstance(one, FeedInputs)
    working = working_shards(one.feed)
    assert 0 < len(working) < one.feed.spec.receiver.shards
    made = [each for each in CASES["shards-feed"]() if each["kind"] == "Deployment"]
    names_wanted = [names.distributor("btc", shard) for shard in working]
    names_wanted += [names.receiver("btc", shard) for shard in working]
    assert [each["metadata"]["name"] for each in made] == names_wanted
    shards = {template["metadata"]["labels"][names.SHARD] for template in templates(made).values()}
    assert shards == {str(shard) for shard in working}


def test_what_is_suspended_has_no_pods_of_its_own() -> None:
    assert [each["kind"] for each in CASES["suspended-feed"]()] == ["ConfigMap"]
    made = CASES["suspended-pipeline"]()
    assert set(templates(made)) == {"StatefulSet/main-redis", "StatefulSet/main-postgres"}
    kept = build_feed(of_feed(feed(FEED), pipeline(MANAGED, suspend=True)))
    assert len(templates(kept)) == 2


@pytest.mark.parametrize(
    ("before", "after"), [("managed-feed", "restarted-feed"), ("managed-pipeline", "restarted-pipeline")]
)
def test_a_restart_changes_only_an_annotation_of_the_services_pods(before: str, after: str) -> None:
    restarted = CASES[after]()
    for where, template in templates(restarted).items():
        annotations = template["metadata"].pop("annotations", {})
        wanted = {names.RESTARTED: "2026-11-26T00:00:00Z"} if where.startswith("Deployment/") else {}
        assert annotations == wanted, where
    assert restarted == CASES[before]()


def test_a_pod_template_is_merged_but_never_over_our_labels() -> None:
    template = templates(CASES["own-pipeline"]())["Deployment/main-processor"]
    labels, spec = template["metadata"]["labels"], template["spec"]
    assert labels["team"] == "data"
    assert labels[names.PIPELINE] == "main"
    assert labels[names.COMPONENT] == names.PROCESSOR
    assert names.FEED not in labels
    assert template["metadata"]["annotations"] == {"note": "kept"}
    given = pipeline(OWN).spec.processor.pod_template
    assert given is not None
    assert spec["topologySpreadConstraints"] == given.spec.topology_spread_constraints
    assert "affinity" not in spec
    assert spec["nodeSelector"] == {"disk": "fast"}
    assert spec["tolerations"] == [{"key": "data", "operator": "Exists"}]
    assert (spec["priorityClassName"], spec["runtimeClassName"]) == ("high", "gvisor")
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["terminationGracePeriodSeconds"] == 90
    plain = templates(CASES["managed-pipeline"]())["Deployment/main-processor"]["spec"]
    assert plain["terminationGracePeriodSeconds"] == 45
    assert plain["affinity"]["podAntiAffinity"].keys() == {"preferredDuringSchedulingIgnoredDuringExecution"}


def test_managed_servers_are_pulled_as_the_processors_are() -> None:
    template = {"spec": {"imagePullSecrets": [{"name": "registry"}], "nodeSelector": {"disk": "fast"}}}
    made = build_pipeline(of_pipeline(pipeline(MANAGED, processor={"podTemplate": template})))
    for server in (names.REDIS, names.POSTGRES):
        spec = templates(made)[f"StatefulSet/main-{server}"]["spec"]
        assert spec["imagePullSecrets"] == [{"name": "registry"}]
        assert "nodeSelector" not in spec


def test_managed_servers_keep_their_data_and_know_their_size() -> None:
    made = build_pipeline(of_pipeline(pipeline(MANAGED, redis={"managed": {"memory": "1Gi", "storage": "3Gi"}})))
    redis = find(made, "StatefulSet", "main-redis")["spec"]
    assert redis["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert redis["replicas"] == 1
    (claim,) = redis["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"] == {"storage": "3Gi"}
    (found,) = redis["template"]["spec"]["containers"]
    assert found["command"] == ["python", "-m", "feedmill.local.managed", "redis"]
    assert found["args"] == [
        "--data", "/data", "--port", "6379", "--password-file", f"{names.SECRETS_DIR}/main-redis/password",
        "--maxmemory", str(2**30),
    ]  # fmt: skip
    assert int(found["resources"]["limits"]["memory"]) == 3 * 2**29
    assert {"tcpSocket"} <= set(found["readinessProbe"])
    assert redis["template"]["spec"]["securityContext"]["fsGroup"] == 10001
    for server in (names.REDIS, names.POSTGRES):
        service = find(made, "Service", f"main-{server}")["spec"]
        selected = find(made, "StatefulSet", f"main-{server}")["spec"]
        assert service["clusterIP"] == "None"
        assert service["selector"] == selected["selector"]["matchLabels"]
        assert selected["serviceName"] == f"main-{server}"


@pytest.mark.parametrize("server", [names.REDIS, names.POSTGRES])
def test_the_urls_lead_to_the_service_of_a_pipeline_that_begins_with_a_digit(server: str) -> None:
    of = pipeline(MANAGED)
    of = of.model_copy(update={"metadata": of.metadata.model_copy(update={"name": "1inch"})})
    made = build_pipeline(of_pipeline(of))
    url = base64.b64decode(find(made, "Secret", f"1inch-{server}")["data"]["url"]).decode()
    assert find(made, "Service", f"{server}-1inch-service")
    assert f"@{server}-1inch-service.feeds.svc:" in url
    assert find(made, "StatefulSet", f"1inch-{server}")["spec"]["serviceName"] == f"{server}-1inch-service"


def test_own_servers_have_nothing_made() -> None:
    made = {each["kind"] for each in CASES["own-pipeline"]()}
    assert not made & {"Secret", "StatefulSet", "Service"}


def test_the_image_is_the_given_one_everywhere() -> None:
    for name in CASES:
        wanted = INPUTS[name].image
        for template in templates(CASES[name]()).values():
            (found,) = template["spec"]["containers"]
            assert (found["image"], found["imagePullPolicy"]) == (wanted, "IfNotPresent")
    assert INPUTS["managed-feed"].image == IMAGE


def test_receivers_spill_where_they_may() -> None:
    template = templates(CASES["own-feed"]())["Deployment/deribit-receiver-0"]["spec"]
    assert {"name": "spill", "emptyDir": {"sizeLimit": "4Gi"}} in template["volumes"]
    (found,) = template["containers"]
    assert {"name": "spill", "mountPath": names.SPILL_DIR} in found["volumeMounts"]
    assert found["args"][found["args"].index("--replica") + 1] == "$(POD_NAME)"
    assert found["args"][found["args"].index("--spill-dir") + 1] == names.SPILL_DIR
    assert env(found)["POD_NAME"] == {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}


def policy(manifests: list[Manifest], name: str) -> Any:
    return find(manifests, "NetworkPolicy", name)["spec"]


def test_only_the_pipelines_pods_reach_its_servers() -> None:
    made = CASES["managed-pipeline"]()
    for server, port, asking in (
        (names.REDIS, 6379, {names.RECEIVER, names.DISTRIBUTOR, names.PROCESSOR, names.MAINTENANCE}),
        (names.POSTGRES, 5432, {names.PROCESSOR, names.MIGRATION, names.MAINTENANCE}),
    ):
        spec = policy(made, f"main-{server}")
        assert spec["egress"] == []
        (rule,) = spec["ingress"]
        assert [each["port"] for each in rule["ports"]] == [port]
        (source,) = rule["from"]
        (expression,) = source["podSelector"]["matchExpressions"]
        assert set(expression["values"]) == asking
        assert source["podSelector"]["matchLabels"] == {names.PIPELINE: "main"}


def test_health_is_open_to_the_operator_and_to_a_prometheus_that_comes() -> None:
    inputs = of_pipeline(pipeline(MANAGED), facts=ClusterFacts(operator_namespace="ops"))
    (rule,) = policy(build_pipeline(inputs), "main-receiver")["ingress"]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ops"}}}]
    assert [each["port"] for each in rule["ports"]] == [names.HEALTH_PORT]
    (open_rule,) = policy(CASES["monitored-pipeline"](), "main-receiver")["ingress"]
    assert open_rule["from"] == [{"namespaceSelector": {}}]
    closed = replace(
        of_pipeline(pipeline(MANAGED, monitoring={"podMonitor": "Disabled"})),
        facts=ClusterFacts(pod_monitor=True, operator_namespace="ops"),
    )
    assert policy(build_pipeline(closed), "main-receiver")["ingress"] == [rule]
    assert policy(build_pipeline(closed), "main-migration")["ingress"] == []


def test_distributors_reach_redis_and_names_only() -> None:
    dns, redis = policy(CASES["managed-pipeline"](), "main-distributor")["egress"]
    assert {(each["protocol"], each["port"]) for each in dns["ports"]} == {("UDP", 53), ("TCP", 53)}
    assert redis["to"] == [{"podSelector": {"matchLabels": {names.COMPONENT: "redis", names.PIPELINE: "main"}}}]
    selectors = [
        each["spec"]["podSelector"]["matchLabels"]
        for each in CASES["managed-pipeline"]()
        if each["kind"] == "NetworkPolicy"
    ]
    pods = [*templates(CASES["managed-pipeline"]()).values(), *templates(CASES["managed-feed"]()).values()]
    for template in pods:
        matching = [each for each in selectors if each.items() <= template["metadata"]["labels"].items()]
        assert len(matching) == 1


def test_what_notifies_finds_every_pod_and_may_ask_it() -> None:
    made = CASES["backups-pipeline"]()
    service = find(made, "Service", "main-health")["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    feed_pods = build_feed(of_feed(feed(FEED), INPUTS["backups-pipeline"].pipeline))
    for template in [*templates(made).values(), *templates(feed_pods).values()]:
        assert service["selector"].items() <= template["metadata"]["labels"].items()
    args = container(made, "Deployment/main-notify")["args"]
    assert args[args.index("--processes") + 1] == "main-health.feeds.svc:8080"
    notifier = {"podSelector": {"matchLabels": {names.COMPONENT: names.NOTIFY, names.PIPELINE: "main"}}}
    for role in (names.RECEIVER, names.DISTRIBUTOR, names.PROCESSOR, names.ACCOUNTS):
        (rule,) = policy(made, f"main-{role}")["ingress"]
        assert notifier in rule["from"]
    assert not any(
        each["kind"] == "Service" and "health" in each["metadata"]["name"] for each in CASES["managed-pipeline"]()
    )


SCHEDULES = ("main-backup", "main-drill", "main-prune")


def test_backups_are_made_and_drilled_by_schedule() -> None:
    made = CASES["backups-pipeline"]()
    for name, run, schedule in (
        ("main-backup", "logical", "0 3 * * *"), ("main-drill", "verify", "0 5 * * 0"),
        ("main-prune", "prune", "0 3 * * *"),
    ):  # fmt: skip
        spec = find(made, "CronJob", name)["spec"]
        assert (spec["schedule"], spec["timeZone"], spec["suspend"]) == (schedule, "Europe/Berlin", False)
        assert spec["concurrencyPolicy"] == "Forbid"
        template = spec["jobTemplate"]
        for labels in (template["metadata"]["labels"], template["spec"]["template"]["metadata"]["labels"]):
            assert (labels[names.RUN], labels[names.PIPELINE]) == (run, "main")
            assert labels[names.MANAGED_BY] == names.MANAGER
            assert names.RUN_OF not in labels
    for suspended in ({"suspend": True}, {"backup": {**BACKUP, "suspend": True}}):
        spec = {"backup": BACKUP} | suspended
        stopped = build_pipeline(of_pipeline(pipeline(MANAGED, **spec)))
        assert all(find(stopped, "CronJob", name)["spec"]["suspend"] for name in SCHEDULES)
    drills_only = build_pipeline(of_pipeline(pipeline(MANAGED, backup={**BACKUP, "verify": {"suspend": True}})))
    assert not find(drills_only, "CronJob", "main-backup")["spec"]["suspend"]
    assert find(drills_only, "CronJob", "main-drill")["spec"]["suspend"]


def test_a_folder_is_a_volume_of_the_users_or_there_are_no_backups() -> None:
    made = templates(CASES["backups-pipeline"]())
    for where in ("CronJob/main-backup", "CronJob/main-drill", "Deployment/main-backup-log"):
        spec = made[where]["spec"]
        assert {"name": "backups", "persistentVolumeClaim": {"claimName": "backups"}} in spec["volumes"]
        assert {"name": "backups", "mountPath": "/backups"} in spec["containers"][0]["volumeMounts"]
        assert spec["nodeSelector"] == {"disk": "fast"}
    homeless = pipeline(MANAGED, backup={**BACKUP, "destination": {"folder": {"path": "/backups"}}})
    assert not [where for where in templates(build_pipeline(of_pipeline(homeless))) if "backup" in where]


def test_drills_and_restores_have_room_and_a_restore_is_tried_once() -> None:
    drill = find(CASES["backups-pipeline"](), "CronJob", "main-drill")["spec"]["jobTemplate"]["spec"]
    (job,) = CASES["run-restore"]()
    for spec, tries in ((drill, 1), (job["spec"], 0)):
        assert spec["backoffLimit"] == tries
        pod = spec["template"]["spec"]
        assert {"name": "scratch", "emptyDir": {"sizeLimit": "50Gi"}} in pod["volumes"]
        assert env(pod["containers"][0])["TMPDIR"] == names.SCRATCH_DIR
    assert job["metadata"]["name"] == "frs-back"
    assert job["metadata"]["labels"][names.RUN_OF] == "back"
    args = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[:4] == ["backup", "restore", "--to", "2026-11-25T03:00:00Z"]


def test_the_log_is_uploaded_by_one_pod_and_only_where_it_is_wanted() -> None:
    found = find(CASES["backups-pipeline"](), "Deployment", "main-backup-log")["spec"]
    assert (found["replicas"], found["strategy"]) == (1, {"type": "Recreate"})
    spool = {"name": "spool", "emptyDir": {"sizeLimit": str(5 * 2**28)}}
    assert spool in found["template"]["spec"]["volumes"]
    without = {**BACKUP, "continuous": {"enabled": False}}
    for changes in ({"backup": without}, {"backup": {**BACKUP, "suspend": True}}, {"backup": BACKUP, "suspend": True}):
        made = build_pipeline(of_pipeline(pipeline(MANAGED, **changes)))
        assert "Deployment/main-backup-log" not in templates(made)
    waits = build_pipeline(of_pipeline(pipeline(MANAGED, backup=BACKUP), migrated=False))
    assert "Deployment/main-backup-log" not in templates(waits)


def test_the_credentials_and_the_key_are_of_two_secrets() -> None:
    """Who takes one of them can read nothing; each pod of backups alone has both."""
    made = templates(CASES["own-pipeline"]())
    (volume,) = [each for each in made["CronJob/main-backup"]["spec"]["volumes"] if each["name"] == "secrets"]
    keys = {
        source["secret"]["name"]: {item["key"] for item in source["secret"]["items"]}
        for source in volume["projected"]["sources"]
    }
    assert keys["b2"] == {"keyId", "applicationKey"}
    assert keys["backup-key"] == {"key"}
    for where, template in made.items():
        has = {path.split("/")[-2] for path in mounted(template)} & {"b2", "backup-key"}
        backups = where in {f"CronJob/{name}" for name in SCHEDULES}
        assert has == ({"b2", "backup-key"} if backups else set())


def monitors(switch: str, *, known: bool) -> set[str]:
    wanted = pipeline(MANAGED, monitoring={"podMonitor": switch, "prometheusRule": switch})
    inputs: PipelineInputs = of_pipeline(wanted, facts=ClusterFacts(pod_monitor=known, prometheus_rule=known))
    return {each["kind"] for each in build_pipeline(inputs)} & {"PodMonitor", "PrometheusRule"}


def test_monitoring_is_made_when_wanted_and_known() -> None:
    both = {"PodMonitor", "PrometheusRule"}
    assert monitors("Auto", known=True) == both
    assert monitors("Auto", known=False) == set()
    assert monitors("Enabled", known=False) == both
    assert monitors("Disabled", known=True) == set()


@pytest.mark.parametrize(
    ("given", "requests", "limits"),
    [
        ({}, {"cpu": "100m", "memory": "192Mi"}, {"memory": "512Mi"}),
        ({"requests": {"cpu": "2"}}, {"cpu": "2", "memory": "192Mi"}, {"memory": "512Mi"}),
        ({"requests": {"memory": "1Gi"}}, {"cpu": "100m", "memory": "1Gi"}, {"memory": "1Gi"}),
        ({"requests": {"memory": "256Mi"}}, {"cpu": "100m", "memory": "256Mi"}, {"memory": "512Mi"}),
        ({"limits": {"memory": "128Mi"}}, {"cpu": "100m", "memory": "128Mi"}, {"memory": "128Mi"}),
        ({"limits": {"memory": "1G", "cpu": 1}}, {"cpu": "100m", "memory": "192Mi"}, {"memory": "1G", "cpu": "1"}),
        ({"limits": {"memory": "0.1Ti"}}, {"cpu": "100m", "memory": "192Mi"}, {"memory": "0.1Ti"}),
        (
            {"requests": {"ephemeral-storage": "2Gi"}},
            {"cpu": "100m", "memory": "192Mi", "ephemeral-storage": "2Gi"},
            {"memory": "512Mi"},
        ),
    ],
)
def test_defaults_give_way_key_by_key(given: Any, requests: dict[str, str], limits: dict[str, str]) -> None:
    defaults = {"requests": {"cpu": "100m", "memory": "192Mi"}, "limits": {"memory": "512Mi"}}
    made = merged(defaults, ResourceRequirements.model_validate(given))
    assert made == {"requests": requests, "limits": limits}
