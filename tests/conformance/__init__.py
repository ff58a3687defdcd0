"""ONNX's conformance cases through the layers: ``cases`` finds them, ``operators`` runs each operator."""
