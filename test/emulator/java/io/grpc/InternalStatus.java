package io.grpc;

/**
 * Stands in front of the class of the same name in the Pub/Sub emulator's jar.
 *
 * <p>The jar mixes two releases of gRPC: its server calls {@link #asRuntimeException(Status,
 * Metadata, boolean)} when a client goes away in the middle of a stream, and its own {@code
 * InternalStatus} has no such method. Nobody logs the NoSuchMethodError; the stream counts as alive,
 * and its messages are given to it again, lease after lease. Everything else here repeats what the
 * jar's class offers.
 */
public final class InternalStatus {
  public static final Metadata.Key<String> MESSAGE_KEY = Status.MESSAGE_KEY;
  public static final Metadata.Key<Status> CODE_KEY = Status.CODE_KEY;

  private InternalStatus() {}

  public static StatusRuntimeException asRuntimeExceptionWithoutStacktrace(
      Status status, Metadata trailers) {
    return asRuntimeException(status, trailers, false);
  }

  public static StatusRuntimeException asRuntimeException(
      Status status, Metadata trailers, boolean fillInStackTrace) {
    return fillInStackTrace
        ? new StatusRuntimeException(status, trailers)
        : new Stackless(status, trailers);
  }

  private static final class Stackless extends StatusRuntimeException {
    private static final long serialVersionUID = 1L;

    Stackless(Status status, Metadata trailers) {
      super(status, trailers);
    }

    @Override
    public synchronized Throwable fillInStackTrace() {
      return this;
    }
  }
}
