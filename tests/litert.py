"""Running .tflite files by LiteRT's own package, or by the same runtime in TensorFlow where that is not installed."""


def run_litert(path, name, batch):
    """Outputs by name of a file for one input, of whatever shape."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        Interpreter = tf.lite.Interpreter
    return Interpreter(str(path)).get_signature_runner()(**{name: batch})
