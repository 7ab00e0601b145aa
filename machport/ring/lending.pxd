# Views of shared memory that tell when the last of them is gone.  lending.py says what the function promises.  For
# machport.ring.queue only.

cdef extern from *:
    """
    /* What a view is a view of.  Python knows by its references when nobody looks any more. */
    struct machport_lent {
        PyObject_HEAD
        char *start;
        Py_ssize_t size;
        PyObject *ring;
        PyObject *loan;
        void (*ended)(PyObject *ring, PyObject *loan);
    };

    static int machport_lent_export(PyObject *self, Py_buffer *buffer, int flags) {
        struct machport_lent *lent = (struct machport_lent *)self;
        return PyBuffer_FillInfo(buffer, self, lent->start, lent->size, 1, flags);
    }
    static void machport_lent_end(PyObject *self) {
        struct machport_lent lent = *(struct machport_lent *)self;
        PyObject *kind, *value, *trace;
        PyObject_Free(self);
        /* The last view may go because of an exception, which is to stay as it is. */
        PyErr_Fetch(&kind, &value, &trace);
        lent.ended(lent.ring, lent.loan);
        PyErr_Restore(kind, value, trace);
        Py_DECREF(lent.loan);
        Py_DECREF(lent.ring);
    }

    static PyBufferProcs machport_lent_buffer = {machport_lent_export, NULL};
    static PyTypeObject machport_lent_type = {
        PyVarObject_HEAD_INIT(NULL, 0)
        .tp_name = "machport.ring.Entry",
        .tp_doc = "An entry of a data queue in place: what views of it keep.",
        .tp_basicsize = sizeof(struct machport_lent),
        .tp_flags = Py_TPFLAGS_DEFAULT,
        .tp_dealloc = machport_lent_end,
        .tp_as_buffer = &machport_lent_buffer,
    };

    static inline PyObject *machport_lend(char *memory, size_t offset, size_t size, PyObject *ring, PyObject *loan,
            void (*ended)(PyObject *, PyObject *)) {
        if (PyType_Ready(&machport_lent_type) < 0)
            return NULL;
        struct machport_lent *lent = PyObject_New(struct machport_lent, &machport_lent_type);
        if (lent == NULL)
            return NULL;
        lent->start = memory + offset;
        lent->size = (Py_ssize_t)size;
        lent->ring = Py_NewRef(ring);
        lent->loan = Py_NewRef(loan);
        lent->ended = ended;
        PyObject *view = PyMemoryView_FromObject((PyObject *)lent);
        Py_DECREF(lent);
        return view;
    }
    """
    object lend "machport_lend" (
        char *memory, size_t offset, size_t size, object ring, object loan, void (*ended)(object, object) noexcept
    )
