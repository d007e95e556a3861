"""ModelTesterMixin as every class under test uses it, ours and BLIP's."""

from conformance import upstream

upstream.require()


class CommonTests(upstream.load("test_modeling_common").ModelTesterMixin):
    """A test class says which model it is of, how a batch is made (`make_tester`), and what gives it a loss."""

    test_can_init_all_missing_weights_before_2023 = True  # asks for a year in the file's head otherwise

    def setUp(self):
        self.model_tester = self.make_tester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        return inputs | self.labels(inputs) if return_labels else inputs

    def labels(self, inputs):
        """What turns a batch into one with a loss."""
        return {}
