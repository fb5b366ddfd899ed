//! A user's mistakes: spans, labels, remedies.
