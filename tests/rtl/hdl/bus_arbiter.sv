// First come, first served by the cycle in which a request arrives; ties go to the earlier stage in program order
// (`order`), then to the lower port: port 0 is the root, port i + 1 is PE i.
//
// A port asks for one message a cycle. A message that `joins` counts as arrived with the one asked for before it.
// The requests of PEs take REQUEST cycles to the arbiter, where they queue. The bus is given for `cycles` cycles.
module bus_arbiter #(
    parameter int PORTS = 3,
    parameter int REQUEST = 0,
    parameter int QUEUE = 64   // requests of one port that can wait; a power of two
) (
    input  logic                   clk,
    input  logic                   rst,
    input  logic [31:0]            now,
    input  logic [PORTS-1:0]       ask,
    input  logic [PORTS-1:0]       ask_joins,
    input  logic [PORTS-1:0][15:0] ask_order,
    input  logic [PORTS-1:0][16:0] ask_cycles,
    output logic [PORTS-1:0]       grant
);
    localparam int BITS = $clog2(QUEUE);

    logic [PORTS-1:0]       waiting;   // somebody waits at the head of the port's queue
    logic [PORTS-1:0][31:0] stamp;     // when its request arrived
    logic [PORTS-1:0][15:0] order;
    logic [PORTS-1:0][16:0] cycles;
    logic [16:0]            busy_left; // cycles for which the bus is still held
    logic [16:0]            granted_cycles;

    genvar p;
    generate
        for (p = 0; p < PORTS; p = p + 1) begin : g_port
            logic        arrives, joins;
            logic [15:0] its_order;
            logic [16:0] its_cycles;
            delay_line #(.WIDTH(35), .CYCLES(p == 0 ? 0 : REQUEST)) travel (
                .clk, .rst,
                .in ({ask[p], ask_joins[p], ask_order[p], ask_cycles[p]}),
                .out({arrives, joins, its_order, its_cycles})
            );

            logic [64:0]     queue [QUEUE];
            logic [BITS:0]   head, tail;
            logic [31:0]     last_stamp, its_stamp;
            wire             empty = head == tail;
            wire  [64:0]     first = queue[head[BITS-1:0]];
            assign its_stamp = joins ? last_stamp : now;
            assign waiting[p] = !empty || arrives;
            assign {stamp[p], order[p], cycles[p]} = empty ? {its_stamp, its_order, its_cycles} : first;

            always_ff @(posedge clk) begin
                if (rst) begin
                    head <= '0;
                    tail <= '0;
                    last_stamp <= '0;
                end else begin
                    if (arrives) begin
                        queue[tail[BITS-1:0]] <= {its_stamp, its_order, its_cycles};
                        tail <= tail + 1'b1;
                        last_stamp <= its_stamp;
                    end
                    if (grant[p]) head <= head + 1'b1;
`ifndef SYNTHESIS
                    assert (tail - head <= QUEUE[BITS:0]) else $error("a queue of requests has overflowed");
`endif
                end
            end
        end
    endgenerate

    // The least (stamp, order), and of equals the lowest port: a chain of comparators.
    logic [47:0] least;
    logic        found;
    always_comb begin
        grant = '0;
        least = '1;
        found = 1'b0;
        granted_cycles = '0;
        if (busy_left == 0) begin
            for (int i = 0; i < PORTS; i = i + 1) begin
                if (waiting[i] && (!found || {stamp[i], order[i]} < least)) begin
                    grant = '0;
                    grant[i] = 1'b1;
                    least = {stamp[i], order[i]};
                    granted_cycles = cycles[i];
                    found = 1'b1;
                end
            end
        end
    end

    always_ff @(posedge clk) begin
        if (rst) busy_left <= '0;
        else if (found) busy_left <= granted_cycles - 1'b1;
        else if (busy_left != 0) busy_left <= busy_left - 1'b1;
    end
endmodule
