"""The schemas on the real API server: what is refused, what is filled in, what people see; and local mode agrees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from clusterkit import samples
from clusterkit.api import Api, Object, Refused, path
from clusterkit.cluster import CRDS, Cluster
from clusterkit.tool import ROOT
from clusterkit.waiting import until
from feedmill.resources.crd import GROUP, KINDS, VERSION, Kind, crd, crds
from feedmill.resources.load import ResourceError, load_texts
from feedmill.resources.shape import Path, Shape, objects_of, properties, show_path, with_defaults

BY_NAME = {kind.name: kind for kind in KINDS}
LOCAL = ("ExchangeFeed", "FeedPipeline", "ExchangeAccount")
"""Kinds that local mode reads."""
_RECEIVER = samples.full("ExchangeFeed")["spec"]["receiver"]
_LIKE_THE_RECEIVER = {"podTemplate": _RECEIVER["podTemplate"], "resources": _RECEIVER["resources"]}
_OWN = {"urlSecretRef": {"name": "x", "key": "url"}, "tls": {"caSecretRef": {"name": "x", "key": "ca"}}}
PARTS: dict[str, list[dict[str, Any]]] = {
    "ExchangeFeed": [
        {},
        {"spec.channels": [{"name": "Candles", "interval": "1m"}], "spec.distributor": _LIKE_THE_RECEIVER},
        {
            "spec.instruments": {
                "select": {
                    "types": ["Option"],
                    "base": ["BTC"],
                    "quote": ["USD"],
                    "expiresWithin": "30d",
                    "maxInstruments": 100,
                    "refreshInterval": "2m",
                }
            },
            "spec.receiver.reconnect.silenceTimeout": "10s",
        },
    ],
    "FeedPipeline": [
        {},
        {
            "spec.redis": {"managed": {"storage": "2Gi", "memory": "1Gi"}},
            "spec.postgres": _OWN | {"circuitBreaker": {"failureThreshold": 5, "resetTimeout": "30s"}},
            "spec.processor": _LIKE_THE_RECEIVER,
            "spec.accounts": _LIKE_THE_RECEIVER,
            "spec.backup.podTemplate": _RECEIVER["podTemplate"],
            "spec.backup.resources": _RECEIVER["resources"],
            "spec.backup.destination": {
                "s3": {
                    "bucket": "backups",
                    "prefix": "feedmill",
                    "credentialsSecretRef": {"name": "s3"},
                    "region": "us-east-1",
                    "endpoint": "http://minio:9000",
                    "pathStyle": True,
                }
            },
        },
        {"spec.backup.destination": {"folder": {"path": "/backups", "claimName": "backups"}}},
    ],
    "FeedBackup": [{"spec.kind": "Base"}],
    "FeedRestore": [{}, {"spec.toTime": ..., "spec.backupId": "20261125T030000Z-logical-0a1b2c"}],
}
"""Changes of the full example that bring in the fields it cannot show at once."""


# --- wrong values, made from the models ------------------------------------------------------------------------------


def wrong_values(shape: Shape) -> Iterator[tuple[str, Any]]:
    """(what it is, value) that no schema of this shape takes."""
    bounds = shape.constraints
    if shape.kind == "enum":
        yield "unknown word", "Nonsense"
        yield "case", shape.choices[0].swapcase()
    elif shape.kind == "integer":
        yield "too small", bounds["ge"] - 1
        yield "too large", bounds["le"] + 1
        yield "text", str(bounds["le"])
        yield "fraction", bounds["ge"] + 0.5
    elif shape.kind == "boolean":
        yield "text", "true"
        yield "number", 1
    elif shape.kind in ("pattern", "string"):
        yield "mapping", {"a": "b"}
        if "pattern" in bounds:
            yield "form", " not such a thing "
            yield "end of line", "1s\n"
        if "max_length" in bounds:
            yield "too long", "a" * (bounds["max_length"] + 1)
        if bounds.get("min_length"):
            yield "empty", ""
    elif shape.kind == "list":
        yield "not a list", "x"
        if "min_length" in bounds:
            yield "empty", []
    elif shape.kind in ("object", "map", "free"):
        yield "not a mapping", "x"
    if shape.kind == "object":
        yield "unknown key", None


def places(shape: Shape, value: Any, here: Path = ()) -> Iterator[tuple[Path, Shape]]:
    """Every place of a document that a model describes."""
    yield here, shape
    if shape.kind == "object" and shape.model is not None and isinstance(value, dict):
        for name, prop in properties(shape.model).items():
            if name in value and (here or name == "spec"):
                yield from places(prop.shape, value[name], (*here, name))
    elif shape.kind == "list" and shape.item is not None and isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(shape.item, item, (*here, index))
    elif shape.kind == "map" and shape.item is not None and isinstance(value, dict):
        for name, item in value.items():
            yield from places(shape.item, item, (*here, name))


def documents(kind: Kind) -> list[Object]:
    found = []
    for changes in PARTS.get(kind.name, [{}]):
        document = samples.full(kind.name)
        for where, value in changes.items():
            document = samples.put(document, where, value)
        found.append(document)
    return found


def wrong_documents(kind: Kind) -> Iterator[tuple[str, str, Object]]:
    """(place, what is wrong, document), each place once."""
    seen: set[tuple[object, ...]] = set()
    for document in documents(kind):
        for where, shape in places(Shape("object", model=kind.model), document):
            general = tuple("[]" if isinstance(part, int) else part for part in where)
            if general in seen or not where:
                continue
            seen.add(general)
            dotted = ".".join(map(str, where))
            for what, value in wrong_values(shape):
                if what == "unknown key":
                    yield show_path(where), what, samples.put(document, f"{dotted}.nobodyKnows", 1)
                else:
                    yield show_path(where), what, samples.put(document, dotted, value)


def tried(kind: Kind) -> set[Path]:
    found: set[Path] = set()
    for document in documents(kind):
        for where, _ in places(Shape("object", model=kind.model), document):
            found.add(tuple("[]" if isinstance(part, int) else part for part in where))
    return found


def fields(kind: Kind) -> set[Path]:
    """All below ``spec``."""
    inside = ((around, model) for around, model in objects_of(kind.model) if around[:1] == ("spec",))
    return {(*around, name) for around, model in inside for name in properties(model)}


def create(api: Api, namespace: str, document: Object) -> Object:
    """Tries it only: nothing is stored."""
    body = {**document, "metadata": {**document["metadata"], "namespace": namespace}}
    return api.create(BY_NAME[document["kind"]].plural, body, "?dryRun=All&fieldValidation=Strict")


def refused_locally(document: Object) -> str:
    """What local mode says; empty when it takes the document."""
    try:
        load_texts({"x.yaml": json.dumps(document)}, local=True)
    except ResourceError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_field_is_tried(kind: Kind) -> None:
    """A field that no sample shows would never be tried below."""
    missing = {show_path(place) for place in fields(kind) - tried(kind)}
    assert not missing


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_wrong_value_is_refused_with_its_place_by_server_and_local_mode(
    api_cluster: Cluster, api_namespace: str, kind: Kind
) -> None:
    mistakes: list[str] = []
    count = 0
    for place, what, document in wrong_documents(kind):
        count += 1
        shown = f"{place}, {what}"
        try:
            create(api_cluster.api, api_namespace, document)
            mistakes.append(f"{shown}: the API server takes it")
        except Refused as error:
            if place not in error.message or error.status not in (400, 422):
                mistakes.append(f"{shown}: the API server does not name the place: {error.message[:300]}")
        if kind.name in LOCAL and not refused_locally(document):
            mistakes.append(f"{shown}: local mode takes it")
    assert not mistakes, "\n".join(mistakes)
    assert count > 5


@pytest.mark.parametrize("kind", [BY_NAME["ExchangeFeed"], BY_NAME["FeedPipeline"]], ids=lambda kind: kind.name)
def test_bounds_themselves_are_taken_by_server_and_local_mode(
    api_cluster: Cluster, api_namespace: str, kind: Kind
) -> None:
    document = documents(kind)[0]
    # More shards than symbols is refused by local mode, which knows the symbols: that is not a matter of schema.
    count = 0
    for where, shape in places(Shape("object", model=kind.model), document):
        if where[-1:] == ("shards",):
            continue
        values = [shape.constraints["ge"], shape.constraints["le"]] if shape.kind == "integer" else shape.choices
        if where[-1:] == ("name",) or where[-1:] == ("environment",):
            continue
        if where[-2:-1] in (("intervals",), ("accountEvents",)):  # Sets: another of them may be it already.
            continue
        for value in values:
            count += 1
            changed = samples.put(document, ".".join(map(str, where)), value)
            create(api_cluster.api, api_namespace, changed)
            assert refused_locally(changed) == "", show_path(where)
    assert count > 10


# --- what is filled in -----------------------------------------------------------------------------------------------


def test_the_server_fills_in_the_defaults_of_the_models(api_cluster: Cluster, api_namespace: str) -> None:
    found = [*samples.example_documents(), samples.pipeline(), samples.feed()]
    found += [samples.full(kind.name) for kind in KINDS]
    found.append(samples.put(samples.pipeline(), "spec.redis", {"managed": {}}))
    found.append(samples.put(samples.pipeline(), "spec.monitoring", {"tracing": {"otlpEndpoint": "http://otel:4318"}}))
    assert {document["kind"] for document in found} == set(BY_NAME)
    for document in found:
        stored = create(api_cluster.api, api_namespace, document)
        assert stored["spec"] == with_defaults(BY_NAME[document["kind"]].model, document)["spec"]


def test_the_server_takes_null_for_nothing(api_cluster: Cluster, api_namespace: str) -> None:
    document = samples.put(samples.feed(), "spec.receiver", None)
    stored = create(api_cluster.api, api_namespace, document)
    assert stored["spec"]["receiver"]["replicas"] == 1
    # In a file it is more likely a line that lost its rest: local mode asks.
    assert "spec.receiver" in refused_locally(document)


def test_every_example_is_taken_by_kubectl(api_cluster: Cluster, api_namespace: str) -> None:
    documents = samples.example_documents()
    assert {document["kind"] for document in documents} >= set(LOCAL)
    for number, document in enumerate(documents):
        # Two examples may show the same feed in two forms: each is a new object.
        text = json.dumps(samples.put(document, "metadata.name", f"{document['metadata']['name'][:30]}-{number}"))
        done = api_cluster.kubectl("apply", "-n", api_namespace, "-f", "-", text=text)
        assert done.stderr == "", "the API server warns"


def test_a_name_of_nobody_is_a_strict_error_in_kubectl(api_cluster: Cluster, api_namespace: str) -> None:
    text = json.dumps(samples.put(samples.feed(), "spec.recever", {}))
    done = api_cluster.kubectl("apply", "-n", api_namespace, "-f", "-", text=text, check=False)
    assert done.returncode != 0
    assert 'unknown field "spec.recever"' in done.stderr


# --- what people see -------------------------------------------------------------------------------------------------


def test_the_committed_crds_are_those_of_the_models_and_the_server_has_them(api_cluster: Cluster) -> None:
    for name, made in crds().items():
        committed = yaml.safe_load((CRDS / name).read_text())
        assert committed == made, f"crds/{name} is not what the models say: run `feedmill docs`"
        chart = yaml.safe_load((ROOT / "helm/feedmill/templates/crds" / name).read_text().replace("{{", "#{{"))
        assert chart["spec"] == made["spec"], "the chart's copy is another: run `feedmill docs`"
        where = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"
        stored = api_cluster.api.request("GET", where + made["metadata"]["name"])
        conditions = {item["type"]: item for item in stored["status"]["conditions"]}
        assert conditions["Established"]["status"] == "True"
        assert conditions["NamesAccepted"]["status"] == "True"
        assert "NonStructuralSchema" not in conditions, conditions["NonStructuralSchema"]["message"]
        assert stored["spec"]["versions"][0]["schema"] == made["spec"]["versions"][0]["schema"]


def test_short_names_and_the_category(api_cluster: Cluster, api_namespace: str) -> None:
    for kind in KINDS:
        document = samples.full(kind.name)
        api_cluster.kubectl("apply", "-n", api_namespace, "-f", "-", text=json.dumps(document))
    for kind in KINDS:
        done = api_cluster.kubectl("get", kind.short, "-n", api_namespace, "-o", "name")
        assert done.stdout.startswith(kind.crd_name.partition(".")[0][:-1]), done.stdout
    everything = api_cluster.kubectl("get", "feedmill", "-n", api_namespace, "-o", "name").stdout.split()
    assert len(everything) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_columns(api_cluster: Cluster, api_namespace: str, kind: Kind) -> None:
    document = samples.full(kind.name)
    document["metadata"]["namespace"] = api_namespace
    api_cluster.api.create(kind.plural, document)
    ready = {"type": "Ready", "status": "False", "reason": "Because", "message": "a sentence"}
    status: dict[str, Any] = {"conditions": [ready]}
    if kind.name not in LOCAL:
        status |= {"phase": "Running", "progress": 45, "message": "dump"}
    api_cluster.api.merge(kind.plural, api_namespace, document["metadata"]["name"], {"status": status}, "status")
    table = api_cluster.api.request(
        "GET", path(kind.plural, api_namespace), accept="application/json;as=Table;v=v1;g=meta.k8s.io"
    )
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", *(c.name for c in kind.columns)]
    row = dict(zip([c["name"] for c in table["columnDefinitions"]], table["rows"][0]["cells"], strict=True))
    assert row["Name"] == document["metadata"]["name"]
    spec = document["spec"]
    wanted: dict[str, Any] = {"Pipeline": "main", "Status": "Running", "Progress": 45, "Message": "dump"}
    if kind.name in LOCAL:
        wanted = {"Ready": "False", "Reason": "Because", "Message": "a sentence"}
    if "exchange" in spec:
        wanted |= {"Exchange": spec["exchange"]["name"], "Market": spec["exchange"]["market"]}
    if "mode" in spec:
        wanted["Mode"] = spec["mode"]
    assert wanted.items() <= row.items()


def test_scale_subresource_of_the_processor(api_cluster: Cluster, api_namespace: str) -> None:
    api_cluster.api.create("feedpipelines", samples.pipeline(namespace=api_namespace))
    where = path("feedpipelines", api_namespace, "main", "scale")
    api_cluster.kubectl("scale", "fpl/main", "--replicas=3", "-n", api_namespace)
    assert api_cluster.api.need("feedpipelines", api_namespace, "main")["spec"]["processor"]["replicas"] == 3
    status = {"processor": {"replicas": 2, "ready": 2, "selector": "a=b"}}
    api_cluster.api.merge("feedpipelines", api_namespace, "main", {"status": status}, "status")
    scale = api_cluster.api.request("GET", where)
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 2, "selector": "a=b"}
    done = api_cluster.kubectl("scale", "fpl/main", "--replicas=17", "-n", api_namespace, check=False)
    assert done.returncode != 0
    assert "spec.processor.replicas" in done.stderr


def test_status_is_a_subresource(api_cluster: Cluster, api_namespace: str) -> None:
    api_cluster.api.create("exchangefeeds", samples.feed(namespace=api_namespace))
    status = {"conditions": [{"type": "Ready", "status": "True", "reason": "Fine"}]}
    api_cluster.api.merge("exchangefeeds", api_namespace, "spot", {"status": status})
    found = api_cluster.api.need("exchangefeeds", api_namespace, "spot")
    assert "status" not in found
    api_cluster.api.merge(
        "exchangefeeds", api_namespace, "spot", {"status": status, "spec": {"suspend": True}}, "status"
    )
    found = api_cluster.api.need("exchangefeeds", api_namespace, "spot")
    assert found["status"]["conditions"][0]["reason"] == "Fine"
    assert found["spec"]["suspend"] is False
    assert found["metadata"]["generation"] == 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_explain_has_text_for_every_field(api_cluster: Cluster, kind: Kind) -> None:
    """As ``kubectl explain`` reads it."""

    def published() -> Any:
        """The API server makes this document a while after it serves the kind."""
        try:
            document = api_cluster.api.request("GET", f"/openapi/v3/apis/{GROUP}/{VERSION}")
        except Refused as error:
            if error.status == 404:
                return None
            raise
        found = document["components"]["schemas"].values()
        kinds = ((value, value.get("x-kubernetes-group-version-kind", [])) for value in found)
        return next((value for value, named in kinds if any(item["kind"] == kind.name for item in named)), None)

    schema = until(published, what=f"the schema of {kind.name}")
    bare: list[str] = []

    def walk(found: Any, here: str) -> None:
        for name, inside in found.get("properties", {}).items():
            if here or name != "metadata":
                if not inside.get("description"):
                    bare.append(f"{here}.{name}")
                walk(inside, f"{here}.{name}")
                walk(inside.get("items", {}), f"{here}.{name}[]")

    walk(schema, "")
    assert bare == []
    names = {".".join(str(part) for part in where if part != "[]") for where in fields(kind)}
    deepest = max(names, key=lambda name: name.count("."))
    said = api_cluster.kubectl("explain", f"{kind.plural}.{deepest}").stdout
    assert said.partition("DESCRIPTION:")[2].strip() not in ("", "<empty>")


def test_the_page_of_a_crd_is_what_crd_says() -> None:
    """One version, served and stored, with the status subresource: what the operator counts on."""
    for kind in KINDS:
        version = crd(kind)["spec"]["versions"][0]
        assert (version["name"], version["served"], version["storage"]) == (VERSION, True, True)
        assert "status" in version["subresources"]
