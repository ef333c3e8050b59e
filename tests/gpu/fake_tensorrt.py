"""A TensorRT that builds and runs without a GPU: real names and signatures, networks computed by ONNX Runtime.

It is as strict as the real one is said to be, and where that would crash or compute something else without a word, it
fails the test: no driver, a second logger, memory that is not the GPU's, UINT8 between nodes, another build's engine.
"""

import json
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

TYPES: dict[int, str] = {
    **{TensorProto.FLOAT: "FLOAT", TensorProto.FLOAT16: "HALF", TensorProto.BFLOAT16: "BF16"},
    **{TensorProto.INT8: "INT8", TensorProto.INT32: "INT32", TensorProto.INT64: "INT64"},
    **{TensorProto.BOOL: "BOOL", TensorProto.UINT8: "UINT8"},
}
LAYERS = {"GridSample": "GRID_SAMPLE", "Cast": "CAST", "Conv": "CONVOLUTION"}
# What the parser up to 11.1 makes of a GridSample's mode; anything else is NEAREST, without a word.
MODES = {"bilinear": "LINEAR", "bicubic": "CUBIC"}
PADDING = {"zeros": "FILL", "border": "CLAMP", "reflection": "REFLECT"}
MAGIC = b"imaginary plan\n"
SCRATCH = 4096  # bytes of activations that an engine asks for


class FakeTensorRT:
    """One installation of a version, on a `FakeCuda` machine; `module` is its `tensorrt`."""

    def __init__(self, machine: Any, bindings: Callable[..., Any], version: str = "11.4.0.106") -> None:
        self.machine, self.version = machine, version
        self.release = tuple(map(int, version.split(".")))
        self.builds = 0
        self.loggers: list[Any] = []
        self.networks: list[Any] = []
        self.configs: list[Any] = []
        self.contexts: list[Any] = []
        self.timing_given: list[bytes] = []
        self.enqueues: list[str] = []  # "plain" or "captured"
        self.build_error: str | None = None  # what a build fails with
        self.captures = True  # False: enqueuing into a capture fails
        self.steps = 3  # of the build's root phase
        self.on_step: Callable[[int], None] = lambda _: None
        self.scratch = SCRATCH
        self.plugins: set[str] = set()  # that were registered, as "namespace::name"
        self.callback_errors: list[Exception] = []
        made = bindings("tensorrt", version, self._behaviour())
        self.bindings, self.module = made, made.module
        self.module.__spec__ = ModuleSpec("tensorrt", None)

    def _behaviour(self) -> dict[str, Callable[..., Any]]:
        found = {}
        for name in dir(self):
            cls, dot, method = name.partition("__")
            if dot and cls in CLASSES:
                found[f"{CLASSES[cls]}.{'__init__' if method == 'new' else method}"] = getattr(self, name)
        return found

    def _enum(self, name: str, member: str) -> Any:
        return getattr(getattr(self.module, name), member)

    def _log(self, severity: int, text: str) -> None:
        self.loggers[-1].log(self.module.ILogger.Severity(severity), text)

    def _touched(self, logger: Any) -> None:
        assert self.machine.driver, (
            "TensorRT was touched without a driver: the real one crashes the interpreter"
        )
        assert self.machine.devices, "TensorRT was touched without a GPU"
        if logger not in self.loggers:
            self.loggers.append(logger)
        assert len(self.loggers) == 1, "a second logger"

    # --- building

    def builder__new(self, builder: Any, logger: Any) -> None:
        self._touched(logger)

    def builder__create_network(self, builder: Any, flags: int) -> Any:
        network = self.bindings.make("INetworkDefinition", flags=flags, model=None, layers=[])
        self.networks.append(network)
        return network

    def builder__create_builder_config(self, builder: Any) -> Any:
        config = self.bindings.make("IBuilderConfig", flags={"TF32"}, pools={}, profiles=[], timings=None)
        config._fake.values.update(progress_monitor=None, max_aux_streams=7, builder_optimization_level=3)
        self.configs.append(config)
        return config

    def builder__create_optimization_profile(self, builder: Any) -> Any:
        return self.bindings.make("IOptimizationProfile", shapes={})

    def network__num_layers(self, network: Any) -> int:
        return len(network._fake.layers)

    def network__get_layer(self, network: Any, index: int) -> Any:
        return network._fake.layers[index]

    def network__num_inputs(self, network: Any) -> int:
        return len(network._fake.model.graph.input)

    def network__num_outputs(self, network: Any) -> int:
        return len(network._fake.model.graph.output)

    def network__get_input(self, network: Any, index: int) -> Any:
        return self._tensor(network._fake.model.graph.input[index])

    def network__get_output(self, network: Any, index: int) -> Any:
        return self._tensor(network._fake.model.graph.output[index])

    def _tensor(self, value: onnx.ValueInfoProto) -> Any:
        tensor = self.bindings.make("ITensor")
        tensor._fake.values.update(
            name=value.name,
            dtype=self._enum("DataType", TYPES[value.type.tensor_type.elem_type]),
            shape=self._dims(_shape(value)),
        )
        return tensor

    def _dims(self, shape: tuple[int, ...]) -> Any:
        made = self.bindings.make("Dims", shape=tuple(shape))
        type(made).__iter__ = lambda dims: iter(dims._fake.shape)
        type(made).__len__ = lambda dims: len(dims._fake.shape)
        return made

    def parser__new(self, parser: Any, network: Any, logger: Any) -> None:
        self._touched(logger)
        parser._fake.network, parser._fake.errors = network, []

    def parser__num_errors(self, parser: Any) -> int:
        return len(parser._fake.errors)

    def parser__get_error(self, parser: Any, index: int) -> Any:
        return parser._fake.errors[index]

    def parser__parse(self, parser: Any, model: bytes, path: str | None) -> bool:
        parsed = onnx.load_from_string(bytes(model))
        inferred = onnx.shape_inference.infer_shapes(parsed).graph
        values = [*inferred.value_info, *inferred.input, *inferred.output]
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
        borders = {value.name for value in [*parsed.graph.input, *parsed.graph.output]}
        for node in parsed.graph.node:
            wrong = self._refused(node, types, ranks, borders)
            if wrong:
                parser._fake.errors.append(self.bindings.make("ParserError", node=node, desc=wrong))
                self._log(1, f"In node {node.name}: {wrong}")
                return False
        parser._fake.network._fake.model = parsed
        parser._fake.network._fake.layers = [self._layer(node) for node in parsed.graph.node]
        return True

    def _refused(
        self, node: onnx.NodeProto, types: dict[str, int], ranks: dict[str, int], borders: set[str]
    ) -> str | None:
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if "plugin_namespace" in given:
            identity = f"{given['plugin_namespace'].decode()}::{node.op_type}"
            known = identity in self.plugins and given.get("plugin_version") == b"1" and given.get("aot") == 1
            return None if known else f"Plugin not found: {identity}"
        if node.domain not in ("", "ai.onnx"):
            return f"no importer is registered for {node.domain}.{node.op_type}"
        for name in (*node.input, *node.output):
            if types.get(name) == TensorProto.UINT8 and (name not in borders or node.op_type != "Cast"):
                return "UINT8 is allowed as an input or output beside a Cast only"
            if types.get(name) == TensorProto.DOUBLE:
                return "DOUBLE is not supported"
        if node.op_type == "GridSample":
            if ranks[node.input[0]] != 4 and self.release < (11, 2):
                return "addGridSample: Error Code 3: API Usage Error"
            if types[node.input[0]] != types[node.input[1]]:
                return "input and grid have two types"
        both = {types.get(n) for n in node.input} >= {TensorProto.UINT8, TensorProto.BFLOAT16}
        return "UINT8 and BF16 in one node" if both else None

    def _layer(self, node: onnx.NodeProto) -> Any:
        kind = self._enum("LayerType", LAYERS.get(node.op_type, "ELEMENTWISE"))
        layer = self.bindings.make("ILayer", node=node)
        layer._fake.values.update(name=node.name or f"node_of_{node.output[0]}", type=kind)
        if node.op_type == "GridSample":
            given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            mode, padding = (given.get(k, v).decode() for k, v in (("mode", b""), ("padding_mode", b"zeros")))
            layer._fake.values.update(
                interpolation_mode=self._enum("InterpolationMode", MODES.get(mode, "NEAREST")),
                sample_mode=self._enum("SampleMode", PADDING[padding]),
                align_corners=bool(given.get("align_corners", 0)),
            )
        return layer

    def error__desc(self, error: Any) -> str:
        return str(error._fake.desc)

    def error__code(self, error: Any) -> Any:
        return self._enum("ErrorCode", "UNSUPPORTED_NODE")

    def error__node_name(self, error: Any) -> str:
        return str(error._fake.node.name)

    def error__node_operator(self, error: Any) -> str:
        return str(error._fake.node.op_type)

    def config__set_flag(self, config: Any, flag: Any) -> None:
        config._fake.flags.add(flag.name)

    def config__clear_flag(self, config: Any, flag: Any) -> None:
        config._fake.flags.discard(flag.name)

    def config__set_memory_pool_limit(self, config: Any, pool: Any, size: int) -> None:
        config._fake.pools[pool.name] = size

    def config__add_optimization_profile(self, config: Any, profile: Any) -> int:
        config._fake.profiles.append(profile)
        return len(config._fake.profiles) - 1

    def config__create_timing_cache(self, config: Any, content: bytes) -> Any:
        return self.bindings.make("ITimingCache", content=bytes(content))

    def config__set_timing_cache(self, config: Any, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        content = cache._fake.content
        if content and not content.startswith(self.version.encode()):
            self._log(2, "the timing cache is of another version")
            return False
        self.timing_given.append(content)
        config._fake.timings = cache
        return True

    def config__get_timing_cache(self, config: Any) -> Any:
        return config._fake.timings

    def timings__serialize(self, cache: Any) -> Any:
        return self._memory(cache._fake.content)

    def profile__set_shape(self, profile: Any, name: str, least: Any, best: Any, most: Any) -> None:
        profile._fake.shapes[name] = [list(least), list(best), list(most)]

    def _memory(self, content: bytes) -> Any:
        made = self.bindings.make("IHostMemory", content=content)
        made._fake.values["nbytes"] = len(content)
        type(made).__bytes__ = lambda memory: memory._fake.content
        return made

    def builder__build_serialized_network(self, builder: Any, network: Any, config: Any) -> Any:
        strongly = self.release[0] >= 11 or network._fake.flags & 1 << int(
            self._enum("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")
        )
        assert strongly, "a weakly typed network is built in types of its own"
        model = network._fake.model
        free = [value.name for value in model.graph.input if -1 in _shape(value)]
        profile = config._fake.profiles[0]._fake.shapes if config._fake.profiles else {}
        if set(free) - set(profile):
            self._log(1, "Network has dynamic inputs, but no optimization profile has been defined")
            return None
        if not self._told(config._fake.values["progress_monitor"]):
            self._log(1, "the build was cancelled")
            return None
        if self.build_error:
            self._log(1, self.build_error)
            return None
        self.builds += 1
        made = onnx.ModelProto()
        made.CopyFrom(model)
        for node, layer in zip(made.graph.node, network._fake.layers, strict=True):
            if node.op_type == "GridSample":
                _set_modes(node, layer._fake.values, made.opset_import[0].version)
        config._fake.timings._fake.content = f"{self.version} after {self.builds}".encode()
        about = {
            "version": self.version,
            "gpu": self.machine.name.decode(),
            "build": self.builds,
            "aux": config._fake.values["max_aux_streams"],
            "profile": profile,
            "detailed": config._fake.values["profiling_verbosity"].name,
        }
        return self._memory(MAGIC + json.dumps(about).encode() + b"\n" + made.SerializeToString())

    def _told(self, monitor: Any) -> bool:
        """Tell the monitor from a thread of its own, as the real one does; an error in it fails the build."""
        going: list[bool] = []

        def tell() -> None:
            monitor.phase_start("Building Engine", None, self.steps)
            monitor.phase_start("Tactic Selection", "Building Engine", 2)
            going.append(monitor.step_complete("Tactic Selection", 0))
            monitor.phase_finish("Tactic Selection")
            for step in range(self.steps):
                self.on_step(step)
                going.append(monitor.step_complete("Building Engine", step))
                if not all(going):
                    break
            monitor.phase_finish("Building Engine")

        def run() -> None:
            try:
                tell()
            except Exception as error:  # noqa: BLE001 - bindings print what a callback raises, and fail
                self.callback_errors.append(error)
                going.append(False)

        if monitor is not None:
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
        return all(going)

    # --- running

    def runtime__new(self, runtime: Any, logger: Any) -> None:
        self._touched(logger)
        runtime._fake.values["engine_host_code_allowed"] = False

    def runtime__deserialize_cuda_engine(self, runtime: Any, plan: bytes) -> Any:
        assert not runtime.engine_host_code_allowed
        plan = bytes(plan)
        if not plan.startswith(MAGIC):
            self._log(1, "Magic tag does not match")
            return None
        head, _, model = plan.removeprefix(MAGIC).partition(b"\n")
        about = json.loads(head)
        if (about["version"], about["gpu"]) != (self.version, self.machine.name.decode()):
            self._log(1, f"The engine plan file is not compatible with this version: {about}")
            return None
        return self.bindings.make("ICudaEngine", about=about, model=onnx.load_from_string(model))

    def engine__num_io_tensors(self, engine: Any) -> int:
        return len(self._borders(engine))

    def _borders(self, engine: Any) -> list[onnx.ValueInfoProto]:
        graph = engine._fake.model.graph
        return [*graph.output, *graph.input]  # in no order that one could count on

    def _border(self, engine: Any, name: str) -> onnx.ValueInfoProto:
        return next(value for value in self._borders(engine) if value.name == name)

    def engine__get_tensor_name(self, engine: Any, index: int) -> str:
        return self._borders(engine)[index].name

    def engine__get_tensor_mode(self, engine: Any, name: str) -> Any:
        given = any(value.name == name for value in engine._fake.model.graph.input)
        return self._enum("TensorIOMode", "INPUT" if given else "OUTPUT")

    def engine__get_tensor_dtype(self, engine: Any, name: str) -> Any:
        return self._enum("DataType", TYPES[self._border(engine, name).type.tensor_type.elem_type])

    def engine__get_tensor_shape(self, engine: Any, name: str) -> Any:
        return self._dims(_shape(self._border(engine, name)))

    def engine__get_tensor_location(self, engine: Any, name: str) -> Any:
        return self._enum("TensorLocation", "DEVICE")

    def engine__device_memory_size_v2(self, engine: Any) -> int:
        return self.scratch

    def engine__num_aux_streams(self, engine: Any) -> int:
        return int(engine._fake.about["aux"])

    def engine__create_execution_context(self, engine: Any, strategy: Any) -> Any:
        assert strategy == self._enum("ExecutionContextAllocationStrategy", "USER_MANAGED")
        context = self.bindings.make(
            "IExecutionContext", engine=engine, shapes={}, addresses={}, block=(0, 0), aux=[], warm=None
        )
        context._fake.values["active_optimization_profile"] = 0 if not self.contexts else -1
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        context._fake.session = onnxruntime.InferenceSession(
            _computed(engine._fake.model).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.contexts.append(context)
        return context

    def engine__create_engine_inspector(self, engine: Any) -> Any:
        return self.bindings.make("EngineInspector", engine=engine)

    def inspector__get_engine_information(self, inspector: Any, form: Any) -> str:
        assert form == self._enum("LayerInformationFormat", "JSON")
        engine = inspector._fake.engine
        nodes = engine._fake.model.graph.node
        if engine._fake.about["detailed"] != "DETAILED":
            return json.dumps({"Layers": [node.name for node in nodes]})
        kinds = {"Cast": "Reformat"}
        layers = [{"Name": n.name, "LayerType": kinds.get(n.op_type, n.op_type)} for n in nodes]
        names = [value.name for value in self._borders(engine)]
        if self.release[0] < 11:
            return json.dumps({"Layers": layers, "Bindings": names})
        return json.dumps({"Layers": layers, "I/O Tensors": [{"Name": name} for name in names]})

    def context__set_optimization_profile_async(self, context: Any, index: int, stream: int) -> bool:
        context._fake.values["active_optimization_profile"] = index
        return True

    def context__set_input_shape(self, context: Any, name: str, shape: Any) -> bool:
        assert context.active_optimization_profile == 0, "no profile has been chosen"
        declared = _shape(self._border(context._fake.engine, name))
        least, _, most = context._fake.engine._fake.about["profile"].get(name, (declared,) * 3)
        if len(shape) != len(declared) or any(
            not low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
        ):
            self._log(1, f"Static dimension mismatch while setting input shape for {name}")
            return False
        context._fake.shapes[name], context._fake.warm = tuple(shape), None
        return True

    def context__infer_shapes(self, context: Any) -> list[str]:
        return [
            v.name for v in context._fake.engine._fake.model.graph.input if v.name not in context._fake.shapes
        ]

    def context__get_tensor_shape(self, context: Any, name: str) -> Any:
        if name in context._fake.shapes:
            return self._dims(context._fake.shapes[name])
        return self._dims(self._output_shapes(context)[name])

    def _output_shapes(self, context: Any) -> dict[str, tuple[int, ...]]:
        model = onnx.ModelProto()
        model.CopyFrom(_computed(context._fake.engine._fake.model))
        del model.graph.value_info[:]
        for value in model.graph.input:
            for axis, size in zip(
                value.type.tensor_type.shape.dim, context._fake.shapes[value.name], strict=True
            ):
                axis.dim_value = size
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        return {value.name: _shape(value) for value in inferred.graph.output}

    def context__set_tensor_address(self, context: Any, name: str, address: int) -> bool:
        if address == 0 or address % 256:
            self._log(1, f"address of {name} is not aligned")
            return False
        self._border(context._fake.engine, name)
        context._fake.addresses[name], context._fake.warm = address, None
        return True

    def context__set_device_memory(self, context: Any, address: int, size: int) -> None:
        assert address % 256 == 0
        context._fake.block, context._fake.warm = (address, size), None

    def context__set_aux_streams(self, context: Any, streams: Any) -> None:
        assert len(set(streams)) == len(streams)
        assert all(stream in self.machine.streams for stream in streams)
        context._fake.aux = list(streams)

    def context__execute_async_v3(self, context: Any, stream: int) -> bool:
        state = context._fake
        assert stream in self.machine.streams, "the default stream, or none that lives"
        address, size = state.block
        if size < self.scratch:
            self._log(1, "no device memory was given")
            return False
        missing = {value.name for value in self._borders(state.engine)} - set(state.addresses)
        if missing or self.context__infer_shapes(context):
            self._log(1, f"not everything is set: {missing}")
            return False
        wanted = state.engine._fake.about["aux"]
        assert len(state.aux) in ((wanted,) if wanted else (0,)), f"{wanted} auxiliary streams are needed"
        assert stream not in state.aux
        capturing = self.machine.capturing(stream)
        if capturing and not (self.captures and state.warm):
            self._log(1, "operation not permitted when stream is capturing")
            return False
        state.warm = state.warm or not capturing
        self.enqueues.append("captured" if capturing else "plain")
        addresses, shapes = dict(state.addresses), {**state.shapes, **self._output_shapes(context)}
        self.machine.enqueue(stream, lambda: self._compute(state, addresses, shapes, address))
        return True

    def _compute(
        self, state: Any, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]], block: int
    ) -> None:
        graph = state.engine._fake.model.graph
        self.machine.view(block, self.scratch)[:] = 0x5A  # activations
        inputs = {v.name: self._array(v, addresses, shapes).copy() for v in graph.input}
        names = [value.name for value in graph.output]
        for value, result in zip(graph.output, state.session.run(names, inputs), strict=True):
            self._array(value, addresses, shapes)[...] = result

    def _array(
        self, value: onnx.ValueInfoProto, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]
    ) -> Any:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        size = int(np.prod(shapes[value.name])) * dtype.itemsize
        return self.machine.view(addresses[value.name], size).view(dtype).reshape(shapes[value.name])


CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "timings": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
}


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    axes = value.type.tensor_type.shape.dim
    return tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in axes)


def _set_modes(node: onnx.NodeProto, layer: dict[str, Any], opset: int) -> None:
    """Let the node sample as the layer says, in the words of the model's opset."""
    new = {"NEAREST": "nearest", "LINEAR": "linear", "CUBIC": "cubic"}
    old = {"NEAREST": "nearest", "LINEAR": "bilinear", "CUBIC": "bicubic"}
    padding = {mode: word for word, mode in PADDING.items()}
    del node.attribute[:]
    node.attribute.extend(
        [
            helper.make_attribute("mode", (new if opset >= 20 else old)[layer["interpolation_mode"].name]),
            helper.make_attribute("padding_mode", padding[layer["sample_mode"].name]),
            helper.make_attribute("align_corners", int(layer["align_corners"])),
        ]
    )


def _computed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with what the fused warp's plugin computes in its place: nearest places, bilinear samples."""
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    mode = "linear" if opset >= 20 else "bilinear"
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if not any(a.name == "plugin_namespace" for a in node.attribute):
            nodes.append(node)
            continue
        field = node.input[0]
        for features, warped in zip(node.input[1:], node.output, strict=True):
            places: Any = (
                ("Shape", [field], "first", {"end": 2}),
                ("Shape", [features], "last", {"start": 2}),
            )
            for operator, inputs, name, options in places:
                nodes.append(helper.make_node(operator, inputs, [f"{warped}/{name}"], **options))
            sizes, few, grid, wide = (f"{warped}/{name}" for name in ("sizes", "few", "grid", "wide"))
            nodes += [
                helper.make_node("Concat", [f"{warped}/first", f"{warped}/last"], [sizes], axis=0),
                helper.make_node(
                    "Resize",
                    [field, "", "", sizes],
                    [few],
                    mode="nearest",
                    nearest_mode="floor",
                    coordinate_transformation_mode="asymmetric",
                ),
                helper.make_node("Transpose", [few], [grid], perm=[0, 2, 3, 1]),
                helper.make_node("Cast", [features], [wide], to=TensorProto.FLOAT),
                helper.make_node("GridSample", [wide, grid], [f"{wide}/warped"], mode=mode),
                helper.make_node("CastLike", [f"{wide}/warped", features], [warped]),
            ]
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made
