# Short names for dev.py, which makes the environment and works on Windows too: python dev.py test
PYTHON ?= python3
export FIRMWARE DEVICE

.PHONY: demo demo-ble test test-python test-zephyr test-ble lint types docs bench fuzz soak build clean
demo demo-ble test test-python test-zephyr test-ble lint types docs bench fuzz soak build clean: ; @$(PYTHON) dev.py $@ $(if $(ARGS),-- $(ARGS))
