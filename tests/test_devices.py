import numpy as np
import torch

from randomix.devices import host_tensor, to_device

CPU = torch.device("cpu")


def test_to_device_takes_arrays_of_any_layout_and_tensors():
    array = np.arange(12).reshape(3, 4)
    assert to_device(array[:, ::2], CPU).tolist() == array[:, ::2].tolist()
    assert to_device(torch.from_numpy(array).T, CPU).tolist() == array.T.tolist()


def test_a_read_only_array_is_copied_without_a_warning():
    array = np.frombuffer(b"\x01\x02\x03", np.uint8)
    tensor = to_device(array, CPU)
    tensor += 1
    assert tensor.tolist() == [2, 3, 4]
    assert array.tolist() == [1, 2, 3]


def test_a_writable_array_is_shared():
    array = np.zeros(3, np.uint8)
    host_tensor(array)[1] = 5
    assert array.tolist() == [0, 5, 0]
