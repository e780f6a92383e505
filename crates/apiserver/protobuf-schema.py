#!/usr/bin/env python3
"""Derives src/protobuf/schema.txt, the field numbers and types of the Kubernetes messages clients may send.

usage: protobuf-schema.py API APIMACHINERY TAG > schema.txt   (two git directories of k8s.io/api and k8s.io/apimachinery)

A message is a line `GROUP/VERSION.Name`; its fields follow as `NUMBER JSONNAME TYPE`. TYPE is s (string),
i (integer), b (boolean), y (bytes), d (double) or a message; `*` before it: a list; `%`: a map from strings;
`?` after it: a zero is told from nothing; `>`: its fields belong to the message itself.
"""
import re
import subprocess
import sys

api, machinery, tag = sys.argv[1:]
GROUPS = ["core", "apps", "discovery", "coordination", "authentication", "authorization", "autoscaling",
          "batch", "policy", "events", "networking", "rbac", "scheduling"]
SPECIAL = {"Time", "MicroTime", "Quantity", "IntOrString", "Duration", "FieldsV1", "RawExtension"}
SCALARS = {"string": "s", "bool": "b", "int32": "i", "int64": "i", "int": "i", "uint8": "i", "uint64": "i",
           "float64": "d", "[]byte": "y", "byte": "y", "types.UID": "s"}
# Slices that are messages of their own on the wire.
WRAPPED = {"ExtraValue", "Verbs"}


def show(repo, path):
    out = subprocess.run(["git", "-C", repo, "show", f"{tag}:{path}"], capture_output=True, text=True)
    return out.stdout if out.returncode == 0 else ""


packages = {"meta/v1": show(machinery, "pkg/apis/meta/v1/types.go")}
for group in GROUPS:
    for version in ["v1", "v2"]:
        source = show(api, f"{group}/{version}/types.go")
        if source:
            packages[f"{group}/{version}"] = source

structs, aliases = {}, {}
for package, source in packages.items():
    source = re.sub(r"//.*", "", source)
    for name, body in re.findall(r"^type (\w+) struct \{\n(.*?)^\}", source, re.S | re.M):
        structs[package, name] = body
    for name, target in re.findall(r"^type (\w+) =? ?([\w.\[\]]+)$", source, re.M):
        aliases[package, name] = target

PREFIX = {"apiv1": "core/v1", "metav1": "meta/v1", "v1": "core/v1", "corev1": "core/v1", "authenticationv1": "authentication/v1"}


def resolve(package, type_):
    """TYPE of a Go type."""
    if type_ in SCALARS:
        return SCALARS[type_]
    if type_.startswith("[]"):
        return "*" + resolve(package, type_[2:])
    if match := re.fullmatch(r"map\[([\w.]+)\](.*)", type_):
        return "%" + resolve(package, match[2])
    if "." in type_:
        prefix, type_ = type_.split(".")
        if type_ in SPECIAL:
            return type_
        package = PREFIX.get(prefix, package)
    if type_ in SPECIAL:
        return type_
    if type_ in WRAPPED:
        return "Strings"
    if (package, type_) in aliases:
        return resolve(package, aliases[package, type_])
    if (package, type_) in structs:
        return f"{package}.{type_}"
    raise SystemExit(f"unknown type {type_} in {package}")


def fields(package, name):
    for line in structs[package, name].splitlines():
        match = re.match(r'\s*(?:(\w+)\s+)?(\S+)\s+`json:"([^"]*)"[^`]*protobuf:"([^"]*)"', line)
        if not match:
            continue
        _, type_, json, wire = match.groups()
        pointer = type_.startswith("*")
        number = wire.split(",")[1]
        json_name = json.split(",")[0]
        resolved = resolve(package, type_.lstrip("*"))
        inline = ",inline" in json
        if json_name == "-":
            continue
        scalar = resolved in "sibyd"
        yield number, json_name or "-", resolved + ("?" if pointer and scalar else "") + (">" if inline else "")


def is_root(package, name):
    body = structs[package, name]
    return "TypeMeta" in body and not name.endswith("List") and "Options" not in name or name == "DeleteOptions"


wanted = [key for key in structs if is_root(*key)]
seen = set()
while wanted:
    key = wanted.pop()
    if key in seen:
        continue
    seen.add(key)
    for _, _, type_ in fields(*key):
        if match := re.search(r"([\w/]+)\.(\w+)", type_):
            wanted.append((match[1], match[2]))

for package, name in sorted(seen):
    print(f"{package}.{name}")
    for number, json, type_ in fields(package, name):
        print(f"{number} {json} {type_.replace(package + '.', '')}")
