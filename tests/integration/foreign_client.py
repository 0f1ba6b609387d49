"""A gRPC client that knows nothing of Octet: it learns every message and method from server reflection.

Only Debian's python3-grpcio and python3-protobuf are used. The reflection protocol itself is described here by
hand (its messages have been stable since v1alpha), so no generated code is needed at all.
"""

from __future__ import annotations

from typing import Any, Iterator

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

_REFLECTION_SERVICE = "grpc.reflection.v1alpha.ServerReflection"
_STRING, _MESSAGE, _BYTES, _INT32, _ENUM = 9, 11, 12, 5, 14
_OPTIONAL, _REPEATED = 1, 3


def _reflection_file() -> descriptor_pb2.FileDescriptorProto:
    """The part of grpc/reflection/v1alpha/reflection.proto that this client uses."""
    package = "grpc.reflection.v1alpha"
    file = descriptor_pb2.FileDescriptorProto(
        name="reflection_subset.proto", package=package, syntax="proto3"
    )

    def add(name: str, fields: list[tuple[str, int, int, int, str]]) -> None:
        message = file.message_type.add(name=name)
        for field_name, number, kind, label, type_name in fields:
            field = message.field.add(name=field_name, number=number, type=kind, label=label)
            if type_name:
                field.type_name = f".{package}.{type_name}"

    add(
        "ServerReflectionRequest",
        [
            ("file_containing_symbol", 4, _STRING, _OPTIONAL, ""),
            ("list_services", 7, _STRING, _OPTIONAL, ""),
        ],
    )
    add("FileDescriptorResponse", [("file_descriptor_proto", 1, _BYTES, _REPEATED, "")])
    add("ServiceResponse", [("name", 1, _STRING, _OPTIONAL, "")])
    add("ListServiceResponse", [("service", 1, _MESSAGE, _REPEATED, "ServiceResponse")])
    add(
        "ErrorResponse",
        [("error_code", 1, _INT32, _OPTIONAL, ""), ("error_message", 2, _STRING, _OPTIONAL, "")],
    )
    add(
        "ServerReflectionResponse",
        [
            ("file_descriptor_response", 4, _MESSAGE, _OPTIONAL, "FileDescriptorResponse"),
            ("list_services_response", 6, _MESSAGE, _OPTIONAL, "ListServiceResponse"),
            ("error_response", 7, _MESSAGE, _OPTIONAL, "ErrorResponse"),
        ],
    )
    # list_services and file_containing_symbol are a oneof on the wire: set exactly one.
    request = file.message_type[0]
    request.oneof_decl.add(name="message_request")
    for field in request.field:
        field.oneof_index = 0
    return file


def _health_file() -> descriptor_pb2.FileDescriptorProto:
    """grpc.health.v1, which servers answer without having its description for reflection."""
    package = "grpc.health.v1"
    file = descriptor_pb2.FileDescriptorProto(name="health.proto", package=package, syntax="proto3")
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=_STRING, label=_OPTIONAL)
    response = file.message_type.add(name="HealthCheckResponse")
    status = response.enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        status.value.add(name=name, number=number)
    response.field.add(
        name="status", number=1, type=_ENUM, label=_OPTIONAL,
        type_name=f".{package}.HealthCheckResponse.ServingStatus",
    )
    service = file.service.add(name="Health")
    service.method.add(
        name="Check", input_type=f".{package}.HealthCheckRequest", output_type=f".{package}.HealthCheckResponse"
    )
    return file


class ForeignClient:
    """Calls any method of a server by name, with dicts in and dicts out."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._pool = descriptor_pool.DescriptorPool()
        self._factory = message_factory.MessageFactory(self._pool)
        self._pool.Add(_reflection_file())
        self._pool.Add(_health_file())
        self._known_files: set[str] = set()

    def close(self) -> None:
        self._channel.close()

    def _message(self, full_name: str) -> Any:
        return self._factory.GetPrototype(self._pool.FindMessageTypeByName(full_name))

    def _reflect(self, **request: str) -> Any:
        request_type = self._message("grpc.reflection.v1alpha.ServerReflectionRequest")
        response_type = self._message("grpc.reflection.v1alpha.ServerReflectionResponse")
        call = self._channel.stream_stream(
            f"/{_REFLECTION_SERVICE}/ServerReflectionInfo",
            request_serializer=request_type.SerializeToString,
            response_deserializer=response_type.FromString,
        )
        response = next(iter(call(iter([request_type(**request)]), timeout=10)))
        if response.HasField("error_response"):
            raise LookupError(response.error_response.error_message)
        return response

    def services(self) -> list[str]:
        response = self._reflect(list_services="*")
        return sorted(service.name for service in response.list_services_response.service)

    def _load(self, symbol: str) -> None:
        files = {}
        for data in self._reflect(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            files[file.name] = file
        self._add_with_dependencies(files, list(files))

    def _add_with_dependencies(self, files: dict[str, Any], names: list[str]) -> None:
        for name in names:
            if name in self._known_files or name not in files:
                continue
            self._known_files.add(name)
            self._add_with_dependencies(files, list(files[name].dependency))
            self._pool.Add(files[name])

    def _method(self, service: str, method: str) -> Any:
        try:
            descriptor = self._pool.FindServiceByName(service)
        except KeyError:
            self._load(service)
            descriptor = self._pool.FindServiceByName(service)
        return descriptor.methods_by_name[method]

    def _start(self, service: str, method: str, request: dict[str, Any], streams: bool, timeout: float) -> Any:
        description = self._method(service, method)
        request_type = self._factory.GetPrototype(description.input_type)
        response_type = self._factory.GetPrototype(description.output_type)
        connect = self._channel.unary_stream if streams else self._channel.unary_unary
        call = connect(
            f"/{service}/{method}",
            request_serializer=request_type.SerializeToString,
            response_deserializer=response_type.FromString,
        )
        message = json_format.ParseDict(request, request_type())
        return call(message, timeout=timeout)

    @staticmethod
    def _as_dict(message: Any) -> dict[str, Any]:
        return json_format.MessageToDict(
            message, preserving_proto_field_name=True, including_default_value_fields=True
        )

    def call(self, service: str, method: str, request: dict[str, Any] | None = None, timeout: float = 60) -> dict:
        """One answer. Raises grpc.RpcError."""
        return self._as_dict(self._start(service, method, request or {}, False, timeout))

    def open_stream(self, service: str, method: str, request: dict[str, Any], timeout: float = 120) -> Any:
        """The raw call: iterate it, or cancel() it."""
        return self._start(service, method, request, True, timeout)

    def stream(self, service: str, method: str, request: dict[str, Any], timeout: float = 120) -> Iterator[dict]:
        """The answers of a server-streaming method. Raises grpc.RpcError."""
        for message in self.open_stream(service, method, request, timeout):
            yield self._as_dict(message)
